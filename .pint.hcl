# pint (cloudflare/pint) reads the rules offline: pint --offline lint. Each exception has its reason.

parser {
  include = ["dashboards/rules.yml", "dashboards/rules-postgres_exporter.yml"]
}

checks {
  disabled = [
    # History is recorded every 15 minutes on purpose, so that 10,000 applications stay cheap; whoever reads it does so
    # with last_over_time() over a longer time, which bridges the gaps that this check warns of.
    "group/interval",
    # Groups differ by interval, and read each other's recorded series with a delay of one evaluation. A rule that looks
    # back over hours does not care.
    "rule/dependency",
  ]
}

rule {
  match { kind = "alerting" }

  annotation "summary" {
    severity = "bug"
    value    = "[^{]+" # fixed: notifications are grouped by it
    required = true
  }
  annotation "description" {
    severity = "bug"
    required = true
  }
  annotation "runbook_url" {
    severity = "bug"
    value    = ".*runbook\\.md#pgleak.+"
    required = true
  }
  label "severity" {
    severity = "bug"
    value    = "page|ticket|info"
    required = true
  }
}

rule {
  match { name = "PgleakLeakSuspected|PgleakConnectionGrowth" }

  # They read recorded series that exist only where something is suspected; the comparisons are in what records them.
  disable = ["alerts/comparison"]
}

rule {
  match { name = "(server|role):pgleak_time_to_exhaustion:seconds" }

  # The only division before the growth that they add up is by the number of an hour's samples, which is not 0 where there
  # is a sample.
  disable = ["promql/nan"]
}
