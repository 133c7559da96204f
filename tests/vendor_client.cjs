// Goes through what @c8y/client has of the local platform's calls; prints each call that succeeded, and what came back.
const { readFileSync } = require("node:fs");
const { createSign } = require("node:crypto");
const { Client, BasicAuth, CrlService, TrustedCertificateService } = require("@c8y/client");
const { BASE, TENANT, USER, PASSWORD, CA_FILE, KEY_FILE, SOURCE } = process.env;

const calls = [];
const found = {};
function spy(core) {
  const fetch = core.fetch.bind(core);
  core.fetch = async (path, options) => {
    const answer = await fetch(path, options);
    calls.push([(options && options.method) || "GET", new URL(answer.url).pathname, answer.status]);
    return answer;
  };
}

async function main() {
  const auth = new BasicAuth({ tenant: TENANT, user: USER, password: PASSWORD });
  found.tenant = (await Client.authenticate({ tenant: TENANT, user: USER, password: PASSWORD }, BASE)).core.tenant;
  const client = new Client(auth, BASE);
  client.core.tenant = TENANT;
  spy(client.core);
  await client.tenant.current();
  found.loginOptions = (await client.options.login.listForCurrentTenant()).data.map((one) => one.type);
  found.user = (await client.user.current()).data.userName;
  const roles = (await client.user.currentWithEffectiveRoles()).data;
  found.admin = client.user.hasRole(roles, "ROLE_TENANT_ADMIN");

  const trusted = new TrustedCertificateService(client.core);
  const pem = readFileSync(CA_FILE, "utf8");
  const ca = (await trusted.create({ name: "js", status: "ENABLED", autoRegistrationEnabled: true, certInPemFormat: pem })).data;
  found.listed = (await trusted.list({ pageSize: 2000 })).data.some((one) => one.fingerprint === ca.fingerprint);
  found.own = (await trusted.list({ certificateAuthority: true })).data.length;
  found.disabled = (await trusted.update({ fingerprint: ca.fingerprint, status: "DISABLED" })).data.status;
  const coded = (await trusted.regeneratePoPVerificationCode(ca)).data;
  const signer = createSign("sha256").update(coded.proofOfPossessionUnsignedVerificationCode);
  const signed = signer.sign(readFileSync(KEY_FILE, "utf8"), "base64");
  found.proven = (await trusted.verifySignedVerificationCode(ca, signed)).data.proofOfPossessionValid;
  const crl = new CrlService(client.core);
  await crl.uploadCrls([{ serialNumberInHex: "AB01", revocationDate: "2023-01-11T16:12:36.288Z" }]);
  await crl.uploadCrlFile(Buffer.from("SERIAL NO.,REVOCATION DATE\r\nAB02,2023-01-11T16:12:36.288Z\r\n"));
  found.crl = Buffer.from(await (await crl.downloadCrlFile()).arrayBuffer()).toString("base64");
  const option = { category: "configuration", key: "crl.offline.check.enabled" };
  found.option = (await client.options.tenant.update({ ...option, value: "true" })).data.value;
  found.options = (await client.options.tenant.list({ pageSize: 100 })).data.some((one) => one.key === option.key);
  await client.options.tenant.detail(option);
  await client.options.tenant.delete(option);
  await client.options.tenant.create({ category: "js", key: "a", value: "1" });
  await trusted.delete(ca.fingerprint);

  const made = (await client.inventory.create({ name: "js [1]", type: "Js", c8y_IsDevice: {}, c8y_A: { b: 1 } })).data;
  const query = { __filter: { name: "js [1]", __has: "c8y_A" }, __orderby: [{ name: 1 }] };
  found.query = (await client.inventory.listQuery(query)).data.map((one) => one.name);
  found.devices = (await client.inventory.listQueryDevices({ "c8y_A.b": { __gt: 0 } })).data.length;
  found.renamed = (await client.inventory.update({ id: made.id, name: "js 2" })).data.name;
  found.detail = (await client.inventory.detail(made.id)).data.name;
  found.page = (await client.inventory.list({ pageSize: 1, withTotalPages: true })).paging.nextPage;
  const name = { type: "c8y_Js", externalId: "js-1", managedObject: { id: made.id } };
  await client.identity.create(name);
  found.identity = (await client.identity.detail(name)).data.managedObject.id === made.id;
  found.names = (await client.identity.list(made.id)).data.length;
  await client.identity.delete(name);

  const time = new Date().toISOString();
  const source = { id: SOURCE };
  const measurement = (await client.measurement.create({ sourceId: SOURCE, c8y_T: { T: { value: 21, unit: "C" } } })).data;
  found.measurement = (await client.measurement.detail(measurement.id)).data.c8y_T.T.value;
  found.measurements = (await client.measurement.list({ source: SOURCE, valueFragmentType: "c8y_T" })).data.length;
  const event = (await client.event.create({ source, time, type: "js", text: "one" })).data;
  found.event = (await client.event.update({ id: event.id, text: "two" })).data.text;
  found.events = (await client.event.list({ source: SOURCE, type: "js" })).data.length;
  await client.event.detail(event.id);
  const alarm = (await client.alarm.create({ source, time, type: "js", text: "one", severity: "MAJOR" })).data;
  found.alarm = (await client.alarm.update({ id: alarm.id, status: "CLEARED" })).data.status;
  found.alarms = (await client.alarm.list({ source: SOURCE, status: ["ACTIVE", "CLEARED"], severity: "MAJOR" })).data.length;
  found.count = (await client.alarm.count({ source: SOURCE })).data;
  await client.alarm.detail(alarm.id);
  const operation = (await client.operation.create({ deviceId: SOURCE, c8y_Relay: { relayState: "OPEN" } })).data;
  found.operation = (await client.operation.update({ id: operation.id, status: "EXECUTING" })).data.status;
  found.operations = (await client.operation.list({ deviceId: SOURCE, status: "EXECUTING", revert: true })).data.length;
  await client.operation.detail(operation.id);
  await client.inventory.delete(made.id);
  const wrong = new Client(new BasicAuth({ tenant: TENANT, user: USER, password: "wrong" }), BASE);
  found.refused = await wrong.inventory.list().then(() => 200, (error) => error.res.status);
}

main().then(
  () => console.log(JSON.stringify({ calls, found })),
  (error) => { console.error(error.data ? JSON.stringify(error.data) + error.res.url : error); process.exit(1); }
);
