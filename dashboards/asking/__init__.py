"""A dashboard's queries, with its variables filled in as Grafana does, asked of a real Prometheus."""
