-- Whom to credit: a line for every asset in the shards.
SELECT DISTINCT f.spdx, f.title, f.author, f.source_url, f.attribution
FROM samples AS s JOIN first_assets AS f USING (asset_id)
ORDER BY f.spdx, f.title, f.source_url;
