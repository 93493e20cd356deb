"""Names and signatures of other tools, so that their users' scripts run with one line changed."""
