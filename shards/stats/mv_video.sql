-- Licences by class, side by side with MV-Video's published counts of models.
WITH published (licence_class, mv_video) AS (
    VALUES ('cc0', 100), ('permissive', 0), ('by', 50000), ('by-sa', 400), ('by-nc', 1500), ('by-nc-sa', 400), ('other', 0)
),
ours AS (
    SELECT licence_class, count(DISTINCT asset_id) AS models
    FROM first_assets JOIN (SELECT DISTINCT asset_id FROM samples) USING (asset_id)
    GROUP BY licence_class
)
SELECT licence_class, coalesce(models, 0) AS models_packed, mv_video
FROM published LEFT JOIN ours USING (licence_class)
ORDER BY list_position(['cc0', 'permissive', 'by', 'by-sa', 'by-nc', 'by-nc-sa', 'other'], licence_class);
