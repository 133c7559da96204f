-- What the local platform keeps. `device` is always the device's identifier, the common name of its certificate.
-- Numbers that others may have kept of what was deleted are not given again (AUTOINCREMENT). A file of an earlier
-- version gets the columns that it lacks: a new one may be null or has a default.

CREATE TABLE IF NOT EXISTS trusted_certificates (
    fingerprint TEXT PRIMARY KEY, tenant TEXT NOT NULL, der BLOB NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
    auto_registration INTEGER NOT NULL, uploaded TEXT NOT NULL, deleted TEXT, proven INTEGER NOT NULL DEFAULT 0,
    code TEXT NOT NULL DEFAULT '', code_until TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS revoked (
    tenant TEXT NOT NULL, serial TEXT NOT NULL, date TEXT NOT NULL, PRIMARY KEY (tenant, serial));

-- A tenant's own CA: whether it may have one, and its key, encrypted. Devices that may enrol until then, with a seal of
-- the one-time password; and each certificate that was issued, with that seal if it was for a password.
CREATE TABLE IF NOT EXISTS features (tenant TEXT PRIMARY KEY, active INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS authorities (tenant TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS enrolments (
    tenant TEXT NOT NULL, device TEXT NOT NULL, password TEXT NOT NULL, until TEXT NOT NULL,
    PRIMARY KEY (tenant, device));
CREATE TABLE IF NOT EXISTS issued (
    id INTEGER PRIMARY KEY, serial TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL,
    password TEXT NOT NULL, der BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS issued_for_password ON issued (password) WHERE password > '';
CREATE INDEX IF NOT EXISTS enrolments_of_device ON enrolments (device);

CREATE TABLE IF NOT EXISTS devices (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device TEXT NOT NULL, registered TEXT NOT NULL,
    created TEXT, name TEXT, type TEXT, fragments TEXT NOT NULL DEFAULT '{}', updated TEXT,
    parent TEXT NOT NULL DEFAULT '', UNIQUE (tenant, device));
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    fragment TEXT NOT NULL, series TEXT NOT NULL, value REAL NOT NULL, unit TEXT NOT NULL,
    fragments TEXT NOT NULL DEFAULT '{}', type TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    type TEXT NOT NULL, text TEXT NOT NULL, fragments TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS alarms (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL, received TEXT NOT NULL,
    type TEXT NOT NULL, text TEXT NOT NULL, severity TEXT NOT NULL, status TEXT NOT NULL, count INTEGER NOT NULL,
    fragments TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device TEXT NOT NULL, time TEXT NOT NULL,
    fragment TEXT NOT NULL, text TEXT NOT NULL, description TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    fragments TEXT NOT NULL DEFAULT '{}');
CREATE INDEX IF NOT EXISTS measurements_of_device ON measurements (tenant, device, time);
CREATE INDEX IF NOT EXISTS events_of_device ON events (tenant, device, time);
CREATE INDEX IF NOT EXISTS alarms_of_device ON alarms (tenant, device, time);
CREATE INDEX IF NOT EXISTS operations_of_device ON operations (tenant, device, time);

CREATE TABLE IF NOT EXISTS external_ids (
    tenant TEXT NOT NULL, type TEXT NOT NULL, name TEXT NOT NULL, object INTEGER NOT NULL,
    PRIMARY KEY (tenant, type, name));
CREATE TABLE IF NOT EXISTS options (
    tenant TEXT NOT NULL, category TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (tenant, category, key));
CREATE TABLE IF NOT EXISTS sessions (
    tenant TEXT NOT NULL, device TEXT NOT NULL, subscriptions TEXT NOT NULL, unreleased TEXT NOT NULL,
    PRIMARY KEY (tenant, device));
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, address TEXT NOT NULL, tenant TEXT NOT NULL, subject TEXT NOT NULL,
    client_id TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, ended TEXT, ending TEXT,
    tls TEXT NOT NULL DEFAULT '', chain TEXT NOT NULL DEFAULT '[]');
