"""From grouped-query attention to static factors with a smaller cache: `edgekit convert --attention tpa`."""
