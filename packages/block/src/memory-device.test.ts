import { blockDeviceContract } from "./block-device-contract.ts";
import { MemoryDevice } from "./memory-device.ts";

blockDeviceContract("A disk in memory", () =>
  Promise.resolve({ device: new MemoryDevice(2 * 2 ** 20), close: () => Promise.resolve() }),
);
