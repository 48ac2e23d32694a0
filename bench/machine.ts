import { cpus, loadavg, release, totalmem } from "node:os";

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  readonly qemu: string;
  /** Of the minute before the first run: what else the machine was busy with. */
  readonly loadAverage: number;
}

export function describeMachine(qemu: string): Machine {
  const processors = cpus();
  return {
    processor: processors[0]?.model ?? "unknown",
    cores: processors.length,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.versions.node,
    qemu,
    loadAverage: loadavg()[0] ?? 0,
  };
}

export function formatMachine(machine: Machine): string {
  const { processor, cores, memoryBytes, kernel, node, qemu, loadAverage } = machine;
  const memoryGib = (memoryBytes / 2 ** 30).toFixed(0);
  return (
    `${cores} cores (${processor}), ${memoryGib} GiB, Linux ${kernel}, Node.js ${node}, ` +
    `QEMU ${qemu}; load average before the first run: ${loadAverage.toFixed(2)}`
  );
}
