// BullMQ at concurrency 100, without a lock: `node bullmq.mjs feed|work`, with the two verbs of `bench.peers.door`.
//
// 100 jobs run at a time over entities that take their turn, so no two of one entity meet; a lock would have to see to
// that, and BullMQ is spared it. Its records and results are kept, as it does by default.
import readline from "node:readline";
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const CONCURRENCY = 100;
const PAGE = 1000;

const verb = process.argv[2];
const connection = new Redis(process.env.BENCH_QUEUE_URL, { maxRetriesPerRequest: null });

if (verb === "work") {
  const entities = new Redis(process.env.BENCH_ENTITIES_URL, { enableAutoPipelining: true });
  const swing = async (job) => {
    const key = `bench:entity:${job.data.name}`;
    const fields = await entities.hgetall(key);
    const payload = JSON.parse(fields.payload);
    payload.count += 1;
    const state = fields.state === "right" ? "left" : "right";
    await entities.hmset(key, "state", state, "payload", JSON.stringify(payload));
    return state;
  };
  const worker = new Worker("bench", swing, { connection, concurrency: CONCURRENCY });
  worker.on("error", (error) => console.error(error));
  process.on("SIGTERM", () => process.exit(0));
} else {
  const queue = new Queue("bench", { connection });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [entities, first, count] = line.split(" ").map(Number);
    for (let begun = 0; begun < count; begun += PAGE) {
      const numbers = Array.from({ length: Math.min(PAGE, count - begun) }, (_, n) => (first + begun + n) % entities);
      await queue.addBulk(
        numbers.map((n) => ({ name: "swing", data: { name: `entity-${String(n).padStart(6, "0")}` } })),
      );
    }
    console.log("fed");
  }
  process.exit(0);
}
