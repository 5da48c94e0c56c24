-- Views beside the tables themselves and `first_assets`, in every connection.

-- A clip with its animation, asset, scores, decision and place in the shards. Cameras and parts are left in `clips`.
CREATE VIEW clips_full AS
SELECT
    c.* EXCLUDE (c2w, parts, settings, made_by, made_from),
    coalesce(list_sum([part.num_bytes for part in c.parts]), 0)::BIGINT AS num_bytes,
    a.* EXCLUDE (animation_id, asset_id, num_frames, fps, made_by, made_from),
    f.seq, f.name, f.title, f.format, f.spdx, f.licence_class, f.author, f.attribution, f.source_url,
    f.checked_on, f.tags,
    p.family_id,
    m.background, m.m, m.m_object, m.ssim_still, m.flow_px,
    v.coverage_min, v.coverage_mean, v.coverage_max, v.border_touch,
    l.luminance_mean, l.contrast, l.colourfulness, l.magenta_share, l.fingerprint,
    d.keep, d.reason, d.reasons, d.preset,
    s.sample_key, s.shard, s.split
FROM clips AS c
LEFT JOIN animations AS a USING (animation_id)
LEFT JOIN first_assets AS f ON f.asset_id = c.asset_id
LEFT JOIN probes AS p ON p.asset_id = c.asset_id
LEFT JOIN image_motion AS m USING (clip_id)
LEFT JOIN visibility AS v USING (clip_id)
LEFT JOIN appearance AS l USING (clip_id)
LEFT JOIN decisions AS d USING (clip_id)
LEFT JOIN samples AS s USING (clip_id);

-- Clips that curation keeps. For their ids alone, ask `decisions`: it is faster.
CREATE VIEW kept AS
SELECT * FROM clips_full WHERE keep;
