"""Objects behind attachments: removed after the commit, only below the configured prefixes."""
