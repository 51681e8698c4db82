// Runs the cases of a JSON file through the JavaScript of the receiver kit; prints the name of each that was taken.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [kit, file] = process.argv.slice(2);
const { verifyHeaderHmac, verifySignedEnvelope, verifySignedEnvelopeRsa, verifyStandard } = await import(pathToFileURL(kit));
for (const { name, kind, secret, headers, now, pem, body: base64 } of JSON.parse(readFileSync(file))) {
  const body = Buffer.from(base64, "base64");
  try {
    if (kind === "standard") verifyStandard(secret, headers, body, now);
    if (kind === "header-hmac") verifyHeaderHmac(secret, headers["x-signature"], body);
    if (kind === "body-hmac-sha256") verifySignedEnvelope(secret, body);
    if (kind === "body-rsa-sha256") verifySignedEnvelopeRsa(pem, body);
    console.log(name);
  } catch {
    // Refused: the name is not printed.
  }
}
