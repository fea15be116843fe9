-- What a client said of a file that it uploads (tus Upload-Metadata), given back as it was sent.
ALTER TABLE upload ADD COLUMN client_metadata TEXT;
