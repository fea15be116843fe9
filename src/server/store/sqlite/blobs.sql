SELECT digest, max(bytes) AS bytes FROM (
    SELECT digest, bytes FROM model_file
    UNION ALL SELECT digest, bytes FROM dataset_file
    UNION ALL SELECT digest, bytes FROM artifact_file
    UNION ALL SELECT digest, bytes FROM upload WHERE digest IS NOT NULL
)
GROUP BY digest
ORDER BY digest
