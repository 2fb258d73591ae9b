"""Draws a dashboard roughly as Grafana would, for looking at the design and for the README: no Grafana is needed.

Layout, titles, units, legends, limits and thresholds are taken from the dashboard's JSON; fonts and spacing are not Grafana's.
"""
