// The nodes of one disk: a format node, to which the virtual device is attached, above a protocol
// node. That of a raw disk can be swapped with `blockdev-reopen` while the guest runs:
//
//   virtio-blk ── raw `disk0` ──┬── `disk0-file`   the image
//                               └── `disk0-nbd`    the agent's export, while it is in the path
//
//   virtio-blk ── qcow2 `disk0` ── `disk0-file`
//
// The same objects serve for the command line and for QMP, so that a node that is put back has the
// options that it was started with: `blockdev-reopen` resets every option that is left out.

/** TRIM of the guest has to arrive at the image, through every node. */
interface NodeDefaults {
  readonly "node-name": string;
  readonly discard: "unmap";
}

export interface FileNode extends NodeDefaults {
  readonly driver: "file" | "host_device";
  readonly filename: string;
}

export interface NbdNode extends NodeDefaults {
  readonly driver: "nbd";
  readonly server: { readonly type: "unix"; readonly path: string };
  readonly export: string;
  readonly "reconnect-delay": number;
}

export interface RawNode extends NodeDefaults {
  readonly driver: "raw";
  /** The name of the protocol node below. */
  readonly file: string;
}

export interface Qcow2Node extends NodeDefaults {
  readonly driver: "qcow2";
  readonly file: string;
  /** An image that names another file is not used: `inspectQcow2` refuses it. */
  readonly backing: null;
}

export type ProtocolNode = FileNode | NbdNode;

/** What a disk's protocol node stands on. */
export type DiskBacking =
  | { readonly kind: "file" | "host-device"; readonly path: string }
  | {
      readonly kind: "nbd";
      readonly socketPath: string;
      readonly exportName: string;
      /** How long QEMU holds the guest's requests while the server is away, before it fails them. */
      readonly reconnectDelaySeconds: number;
    };

export interface DiskNodeNames {
  readonly raw: string;
  readonly file: string;
  readonly nbd: string;
}

export function diskNodeNames(diskId: string): DiskNodeNames {
  return { raw: diskId, file: `${diskId}-file`, nbd: `${diskId}-nbd` };
}

export function protocolNode(diskId: string, backing: DiskBacking): ProtocolNode {
  const names = diskNodeNames(diskId);
  if (backing.kind === "nbd") {
    return {
      driver: "nbd",
      "node-name": names.nbd,
      discard: "unmap",
      server: { type: "unix", path: backing.socketPath },
      export: backing.exportName,
      "reconnect-delay": backing.reconnectDelaySeconds,
    };
  }
  return {
    driver: backing.kind === "file" ? "file" : "host_device",
    "node-name": names.file,
    discard: "unmap",
    filename: backing.path,
  };
}

/** The node of a qcow2 disk, standing on its file. */
export function qcow2Node(diskId: string): Qcow2Node {
  const names = diskNodeNames(diskId);
  return {
    driver: "qcow2",
    "node-name": names.raw,
    discard: "unmap",
    file: names.file,
    backing: null,
  };
}

/** The raw node of a disk, standing on the protocol node of that kind. */
export function rawNode(diskId: string, above: "file" | "nbd"): RawNode {
  const names = diskNodeNames(diskId);
  return { driver: "raw", "node-name": names.raw, discard: "unmap", file: names[above] };
}
