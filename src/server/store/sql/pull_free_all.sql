UPDATE model_pull SET lease_until = NULL WHERE state = 'active'
