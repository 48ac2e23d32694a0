// What is measured: a guest at work, and the link that it has to cross.

export interface Link {
  readonly name: string;
  /** As `tc` has it; null = as fast as the machine copies. */
  readonly rate: string | null;
}

/** An image that travels with the guest. What the guest does on it, its workload says. */
export interface BenchDisk {
  readonly sizeMib: number;
  /** The share of it that holds data from the beginning; half of that data is noise. */
  readonly fill: number;
}

export interface BenchGuest {
  readonly memoryMib: number;
  /** Parameters of the guest's workload: how much memory it works on, and how. */
  readonly workload: Readonly<Record<string, string>>;
  readonly disk?: BenchDisk;
}

export interface BenchCase {
  readonly name: string;
  /** In the words of the table. */
  readonly about: string;
  readonly guest: BenchGuest;
  readonly link: Link;
  /** Memory follows the guest: only methods that can do that are measured. */
  readonly postcopy?: true;
}

const UNLIMITED: Link = { name: "unlimited", rate: null };
const GIGABIT: Link = { name: "1 Gbit/s", rate: "1gbit" };
const HUNDRED_MEGABIT: Link = { name: "100 Mbit/s", rate: "100mbit" };

/** Nine of ten writes hit 2 % of the pages; `0:0` spreads them evenly. */
const HOT = { hot: "90:2" };
const EVEN = { hot: "0:0" };

const SMALL_GUEST: BenchGuest = {
  memoryMib: 512,
  workload: { mem: "256M", rate: "2000", ...EVEN },
};
const EVEN_GUEST: BenchGuest = {
  memoryMib: 1024,
  workload: { mem: "512M", rate: "2000", ...EVEN },
};

/** The guest reads more than it writes, so that it has soon looked at all of its records. */
const DISK_WRITES = { diskrate: "300", disksweep: "4" };
/** Four requests at once, nine of ten writes on 2 % of the records: some ten times as many. */
const HOT_DISK_WRITES = { diskrate: "3000", diskthreads: "4", diskhot: "90:2" };

const DISK_GUEST: BenchGuest = {
  memoryMib: 1024,
  workload: { ...EVEN_GUEST.workload, ...DISK_WRITES },
  disk: { sizeMib: 2048, fill: 0.5 },
};

/** Rewrites some three times as many pages as the link carries uncompressed. */
export const POSTCOPY_CASES: readonly BenchCase[] = [
  {
    name: "postcopy-1g",
    about: "512 of 1024 MiB, 90,000 pages/s, 64 bytes of each",
    guest: { memoryMib: 1024, workload: { mem: "512M", rate: "90000", bytes: "64", ...EVEN } },
    link: GIGABIT,
    postcopy: true,
  },
  {
    name: "postcopy-100m",
    about: "128 of 512 MiB, 9,000 pages/s",
    guest: { memoryMib: 512, workload: { mem: "128M", rate: "9000", ...EVEN } },
    link: HUNDRED_MEGABIT,
    postcopy: true,
  },
];

/** One small guest on two links, and with a disk: a look that takes less than three minutes. */
export const QUICK_CASES: readonly BenchCase[] = [
  {
    name: "quick-unlimited",
    about: "256 of 512 MiB, 2,000 pages/s",
    guest: SMALL_GUEST,
    link: UNLIMITED,
  },
  {
    name: "quick-1g",
    about: "256 of 512 MiB, 2,000 pages/s",
    guest: SMALL_GUEST,
    link: GIGABIT,
  },
  {
    name: "quick-disk-1g",
    about: "256 of 512 MiB, 2,000 pages/s; disk 256 of 512 MiB, 300 writes/s",
    guest: {
      ...SMALL_GUEST,
      workload: { ...SMALL_GUEST.workload, ...DISK_WRITES },
      disk: { sizeMib: 512, fill: 0.5 },
    },
    link: GIGABIT,
  },
];

export const FULL_CASES: readonly BenchCase[] = [
  {
    name: "even-unlimited",
    about: "512 of 1024 MiB, 2,000 pages/s",
    guest: EVEN_GUEST,
    link: UNLIMITED,
  },
  {
    name: "even-1g",
    about: "512 of 1024 MiB, 2,000 pages/s",
    guest: EVEN_GUEST,
    link: GIGABIT,
  },
  {
    name: "hot-1g",
    about: "512 of 1024 MiB, 100,000 pages/s (90 % of them on 2 %)",
    guest: { memoryMib: 1024, workload: { mem: "512M", rate: "100000", ...HOT } },
    link: GIGABIT,
  },
  {
    name: "bytes-1g",
    about: "512 of 1024 MiB, 60,000 pages/s (90 % of them on 2 %), 64 bytes of each",
    guest: { memoryMib: 1024, workload: { mem: "512M", rate: "60000", bytes: "64", ...HOT } },
    link: GIGABIT,
  },
  {
    name: "even-100m",
    about: "256 of 1024 MiB, 2,000 pages/s",
    guest: { memoryMib: 1024, workload: { mem: "256M", rate: "2000", ...EVEN } },
    link: HUNDRED_MEGABIT,
  },
  {
    name: "bytes-100m",
    about: "128 of 512 MiB, 20,000 pages/s, 64 bytes of each",
    guest: { memoryMib: 512, workload: { mem: "128M", rate: "20000", bytes: "64", ...EVEN } },
    link: HUNDRED_MEGABIT,
  },
  {
    name: "disk-unlimited",
    about: "512 of 1024 MiB, 2,000 pages/s; disk 1 of 2 GiB, 300 writes/s",
    guest: DISK_GUEST,
    link: UNLIMITED,
  },
  {
    name: "disk-1g",
    about: "512 of 1024 MiB, 2,000 pages/s; disk 1 of 2 GiB, 300 writes/s",
    guest: DISK_GUEST,
    link: GIGABIT,
  },
  {
    name: "disk-hot-1g",
    about: "512 of 1024 MiB, 2,000 pages/s; disk 1 of 2 GiB, 3,000 writes/s (90 % of them on 2 %)",
    guest: { ...DISK_GUEST, workload: { ...EVEN_GUEST.workload, ...HOT_DISK_WRITES } },
    link: GIGABIT,
  },
  {
    name: "disk-empty-1g",
    about: "512 of 1024 MiB, 2,000 pages/s; disk 0.4 of 8 GiB, 300 writes/s",
    guest: { ...DISK_GUEST, disk: { sizeMib: 8192, fill: 0.05 } },
    link: GIGABIT,
  },
];
