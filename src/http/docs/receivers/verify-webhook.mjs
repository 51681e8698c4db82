// Verify what Lutine sends. Node.js 18 or later, nothing to install.
//
// Every function takes the body as the bytes (Buffer) that arrived. Verify first, parse afterwards: a body that was
// parsed and written again is another body. All of them throw when the webhook is not to be trusted.
import { createHmac, createVerify, timingSafeEqual } from "node:crypto";

const TOLERANCE_SECONDS = 300;

/** The 32 bytes behind `whsec_`, which every signature with a shared secret is made with. */
export function keyOf(secret) {
  return Buffer.from(secret.replace(/^whsec_/, ""), "base64");
}

function isEqual(given, expected) {
  const [left, right] = [Buffer.from(given), Buffer.from(expected)];
  return left.length === right.length && timingSafeEqual(left, right);
}

/** Standard Webhooks: the headers webhook-id, webhook-timestamp and webhook-signature (names in lower case). */
export function verifyStandard(secret, headers, body, now = Date.now() / 1000) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures } = headers;
  if (!/^\d+$/.test(timestamp ?? "") || Math.abs(now - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new Error("the webhook is too old, or its clock is ahead");
  }
  const expected = createHmac("sha256", keyOf(secret)).update(`${id}.${timestamp}.`).update(body).digest("base64");
  // During a rotation there are two signatures; one that matches is enough.
  const matches = (signature) => signature.startsWith("v1,") && isEqual(signature.slice(3), expected);
  if (!(signatures ?? "").split(" ").some(matches)) throw new Error("no signature matches");
}

/** The header X-Signature of the profile `envelope`: sha256={hex} over the body. */
export function verifyHeaderHmac(secret, signature, body) {
  const expected = "sha256=" + createHmac("sha256", keyOf(secret)).update(body).digest("hex");
  if (!isEqual(signature ?? "", expected)) throw new Error("the signature does not match");
}

/** The profile `signed-envelope` with a shared secret; returns the payload that was signed. */
export function verifySignedEnvelope(secret, body) {
  const { payloadAsString, signature } = JSON.parse(body);
  const expected = createHmac("sha256", keyOf(secret)).update(payloadAsString).digest("base64");
  if (!isEqual(signature, expected)) throw new Error("the signature does not match");
  // The text is what was signed; `payload` beside it is for people.
  return JSON.parse(payloadAsString);
}

/** The same with RSA; the key is what GET /api/v1/webhooks/public-key answers. */
export function verifySignedEnvelopeRsa(publicKeyPem, body) {
  const { payloadAsString, signature } = JSON.parse(body);
  const matches = createVerify("RSA-SHA256").update(payloadAsString).verify(publicKeyPem, signature, "base64");
  if (!matches) throw new Error("the signature does not match");
  return JSON.parse(payloadAsString);
}
