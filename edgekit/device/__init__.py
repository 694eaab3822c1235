"""The machines edgekit runs on."""
