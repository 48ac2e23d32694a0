// What is measured: a guest at work, and the link that it has to cross.

export interface Link {
  readonly name: string;
  /** As `tc` has it; null = as fast as the machine copies. */
  readonly rate: string | null;
}

export interface BenchGuest {
  readonly memoryMib: number;
  /** Parameters of the guest's workload: how much memory it works on, and how. */
  readonly workload: Readonly<Record<string, string>>;
}

export interface BenchCase {
  readonly name: string;
  /** In the words of the table. */
  readonly about: string;
  readonly guest: BenchGuest;
  readonly link: Link;
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

/** One small guest on two links: a look that takes less than three minutes. */
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
];
