// Protects one image: node activate.mjs PHOTO ASSET_ID. Where Redis and S3 are is in the environment, as for the others.
import { createHash, createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:net";

const { AII_S3_ENDPOINT: host, AII_S3_ACCESS_KEY: user, AII_S3_SECRET_KEY: secret, AII_REDIS_URL } = process.env;
const [image, asset_id] = [readFileSync(process.argv[2]), process.argv[3]];
const sha256 = (data) => createHash("sha256").update(data).digest("hex");
const hmac = (key, text) => createHmac("sha256", key).update(text).digest();
const jcs = (value) => value?.constructor !== Object ? JSON.stringify(value)
  : `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${jcs(value[key])}`)}}`;

function s3(method, path, body) { // AWS signature, version 4
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, ""), scope = `${time.slice(0, 8)}/us-east-1/s3/aws4_request`;
  const headers = { host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": time }, names = Object.keys(headers).join(";");
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`).join("");
  const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${sha256(`${method}\n${path}\n\n${lines}\n${names}\nUNSIGNED-PAYLOAD`)}`;
  const signature = hmac(scope.split("/").reduce(hmac, "AWS4" + secret), text).toString("hex");
  const authorization = `AWS4-HMAC-SHA256 Credential=${user}/${scope}, SignedHeaders=${names}, Signature=${signature}`;
  return fetch(`http://${host}${path}`, { method, body, headers: { ...headers, authorization } });
}

const request = { task: "aii.activate", schema_version: 2, collection: "starter", source: { sha256: sha256(image) }, asset_id };
const id = sha256(jcs(request)).slice(0, 32);
if (!(await s3("PUT", `/originals/${request.source.sha256}`, image)).ok) throw new Error("S3 does not take the image");
const message = { headers: { task: request.task, id }, body: JSON.stringify([[], { request }, {}]) };
const resp = (...words) => `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
const redis = new URL(AII_REDIS_URL), socket = connect(redis.port, redis.hostname);
socket.end(resp("AUTH", redis.username || "default", decodeURIComponent(redis.password)) + resp("LPUSH", "activate", JSON.stringify(message)));
for await (const answer of socket) if (/^-/m.test(answer)) throw new Error(answer);
let document;
while (!(document = await s3("GET", `/results/${id}.json`)).ok) await new Promise((resolve) => setTimeout(resolve, 100));
console.log(await document.text());
