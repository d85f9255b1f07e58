"""One archive for whoever helps an operator: settings, findings, metrics, versions, requests; no key and no secret."""
