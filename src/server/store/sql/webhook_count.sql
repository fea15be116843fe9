SELECT count(*) AS webhooks FROM webhook WHERE tenant = $1
