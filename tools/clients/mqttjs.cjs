// Connects with MQTT.js, and prints what it says: one attempt a line of standard input, as JSON.
const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline");
const mqtt = require("mqtt");
const SECONDS = 6;

async function connect(attempt) {
  const heard = [];
  const scheme = attempt.websocket ? "wss" : attempt.plain ? "mqtt" : "mqtts";
  const options = { clientId: attempt.id, reconnectPeriod: 0, connectTimeout: (SECONDS / 2) * 1000 };
  options.protocolVersion = attempt.mqtt5 ? 5 : 4;
  try {
    if (!attempt.plain) {
      options.minVersion = options.maxVersion = attempt.tls;
      options.ca = readFileSync(attempt.ca);
      if (attempt.cert) Object.assign(options, { cert: readFileSync(attempt.cert), key: readFileSync(attempt.key) });
      if (attempt.passphrase) options.passphrase = attempt.passphrase;
    }
    if (attempt.user) Object.assign(options, { username: attempt.user, password: attempt.password });
    const client = mqtt.connect(`${scheme}://${attempt.host}:${attempt.port}`, options);
    await new Promise((done) => {
      const end = () => client.end(true, {}, done);
      const timer = setTimeout(end, SECONDS * 1000);
      client.on("connect", () => { heard.push("CONNECTED"); if (!attempt.stay) { clearTimeout(timer); end(); } });
      client.on("error", (error) => heard.push(String(error)));
      client.on("close", () => { heard.push("close"); clearTimeout(timer); end(); });
    });
  } catch (error) {
    heard.push(String(error));
  }
  return heard;
}

process.on("uncaughtException", (error) => console.log(JSON.stringify([`Uncaught ${error}`])));
(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await connect(JSON.parse(line))));
  }
})();
