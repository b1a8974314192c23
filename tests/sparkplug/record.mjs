// Payloads as sparkplug-payload of Eclipse Tahu encodes them; record.py says what they hold.
import { readFileSync } from "node:fs";
import sparkplug from "sparkplug-payload";

const { birth, timestamp } = JSON.parse(readFileSync(0, "utf8"));
const peer = sparkplug.get("spBv1.0");
const metrics = birth.map(([type, value], alias) => ({
  name: `m${alias}`, alias, timestamp: timestamp + alias, type, value,
}));
const payloads = [
  { timestamp, seq: 3, metrics },
  { timestamp, seq: 4, metrics: [{ name: "n", type: "Double", value: null }] },
];
console.log(JSON.stringify(payloads.map((one) => Buffer.from(peer.encodePayload(one)).toString("hex"))));
