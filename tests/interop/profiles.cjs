// Reads webhooks from standard input and verifies them with libraries from npm and with Node's own crypto; the argument
// is the folder that the libraries are installed in. Prints {"passed": N, "failures": [...]}.
const { createRequire } = require("node:module");
const { createVerify } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { resolve } = require("node:path");

const installed = createRequire(resolve(process.argv[2], "package.json"));
const { Webhook } = installed("standardwebhooks");
const { HTTP } = installed("cloudevents");

const { hooks, publicKey, url } = JSON.parse(readFileSync(0, "utf8"));
const failures = [];
let passed = 0;
const check = (what, holds) => (holds ? (passed += 1) : failures.push(what));

for (const { name, secret, headers, body } of hooks) {
  const what = `${name} ${headers["webhook-id"]}`;
  const text = Buffer.from(body, "base64").toString("utf8");
  if (headers["webhook-signature"]) {
    try {
      new Webhook(secret).verify(text, headers);
      check(what, true);
    } catch (error) {
      check(`${what}: ${error}`, false);
    }
  }
  if (["structured", "binary", "batch"].includes(name)) {
    const parsed = HTTP.toEvent({ headers, body: text });
    const event = Array.isArray(parsed) ? parsed[0] : parsed;
    const isRight = event.source === `${url}/companies/acme` && event.type === "claim.created" && event.specversion === "1.0";
    check(`${what}: the attributes ${JSON.stringify(event)}`, isRight && Array.isArray(parsed) === (name === "batch"));
    check(`${what}: the data`, JSON.stringify(event.data.list) === "[1,null,true,{}]");
  }
  if (name === "signed-envelope-rsa") {
    // As the partner's own page shows it.
    const { payload, payloadAsString, signature } = JSON.parse(text);
    const verify = createVerify("SHA256");
    verify.update(payloadAsString);
    check(`${what}: the signature`, verify.verify(publicKey, signature, "base64"));
    check(`${what}: the payload as string`, JSON.stringify(payload) === payloadAsString);
  }
  if (name === "signed-envelope") {
    const { payload, payloadAsString } = JSON.parse(text);
    check(`${what}: the payload as string`, JSON.stringify(payload) === payloadAsString);
  }
}
console.log(JSON.stringify({ passed, failures: failures.slice(0, 10) }));
