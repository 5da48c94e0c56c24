-- What was turned away, by stage and reason, with an example of each.
SELECT stage, reason, count(*) AS num, min_by(name, rejected_id) AS example, min_by(detail, rejected_id) AS detail
FROM (SELECT DISTINCT ON (stage, rejected_id) * FROM rejected_named ORDER BY stage, rejected_id, made_by)
GROUP BY stage, reason
UNION ALL
SELECT 'curate.decide', d.reason, count(*), min_by(f.name, d.clip_id), min_by(d.clip_id, d.clip_id)
FROM decisions AS d LEFT JOIN clips_full AS f USING (clip_id)
WHERE NOT d.keep
GROUP BY d.reason
ORDER BY stage, num DESC, reason;
