"""The dashboards as Python: what is asked of Prometheus, how it is drawn, and where it stands."""
