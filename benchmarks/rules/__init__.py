"""What the rules of dashboards/rules.yml cost a Prometheus."""
