UPDATE webhook SET old_secret = secret, old_secret_until = $2, secret = $3, updated_at = $4 WHERE id = $1
