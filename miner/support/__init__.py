"""The support bundle: settings, findings, metrics, versions, requests in one archive; no key and no secret."""
