-- How far each tenant of a platform is, for the trainer's panel: `LocalPlatform.progress`, on platform.sqlite.
-- A device that is refused before its tenant is known (:tenants does not have it) stands in a row of its own, by the
-- address that it came from, until the newest attempt from there is another one.
WITH tenants AS (SELECT value AS tenant FROM json_each(:tenants)),
recent AS (
    SELECT *, rtrim(rtrim(address, '0123456789'), ':') AS host FROM log
    WHERE id > (SELECT max(id) FROM log) - 20000),
refused AS (SELECT tenant, max(id) AS id FROM recent WHERE code <> 'CONNECTED' GROUP BY tenant),
newest AS (  -- who goes without having shown a certificate has only looked at the server's, as 05 does
    SELECT host, max(id) AS id FROM recent
    WHERE code NOT IN ('HANDSHAKE_FAILED', 'NO_CONNECT', 'CONNECTION_LOST') OR chain <> '[]' GROUP BY host),
rows AS (
    SELECT
        t.tenant,
        CASE
            WHEN EXISTS (SELECT * FROM measurements m WHERE m.tenant = t.tenant) THEN '4 measurement arrived'
            WHEN EXISTS (SELECT * FROM devices d WHERE d.tenant = t.tenant) THEN '3 device connected'
            WHEN EXISTS (SELECT * FROM trusted_certificates c WHERE c.tenant = t.tenant AND c.deleted IS NULL)
            THEN '2 CA uploaded'
            ELSE '1 nothing yet'
        END AS step,
        (SELECT count(*) FROM measurements m WHERE m.tenant = t.tenant) AS measurements,
        coalesce((
            SELECT group_concat(DISTINCT client_id) FROM recent r
            WHERE r.tenant = t.tenant AND r.code = 'CONNECTED' AND r.ended IS NULL), '') AS connected,
        l.time AS refused,
        coalesce(l.code, '') AS code,
        coalesce(l.reason, '') AS reason
    FROM tenants t LEFT JOIN refused ON refused.tenant = t.tenant LEFT JOIN log l ON l.id = refused.id
    UNION ALL
    SELECT '', 'from ' || n.host, 0, '', r.time, r.code, r.reason
    FROM newest n JOIN recent r ON r.id = n.id WHERE r.tenant = '' AND r.code <> 'CONNECTED'
)
SELECT * FROM rows ORDER BY tenant = '', tenant, step
