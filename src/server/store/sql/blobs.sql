SELECT word, max(number) AS number FROM (
    SELECT digest AS word, bytes AS number FROM model_file
    UNION ALL SELECT digest, bytes FROM dataset_file
    UNION ALL SELECT digest, bytes FROM artifact_file
    UNION ALL SELECT digest, bytes FROM upload WHERE digest IS NOT NULL
) AS files
GROUP BY word
ORDER BY word
