//! A packet filter in classic BPF that matches DNS queries for AAAA and nothing else.
//!
//! Classic BPF needs no compiler, no `bpf(2)` and no rights beyond those to change a queue. It has no
//! loops: the walk over the name's labels is written out for as many as a name can have.

/// `struct sock_filter` of `linux/filter.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub if_true: u8,
    /// How many if it does not.
    pub if_false: u8,
    /// The operand.
    pub operand: u32,
}

/// `SKF_NET_OFF`: offsets from here count from the network header, wherever the packet's data begins.
const NETWORK: u32 = (-0x10_0000_i32).cast_unsigned();
/// RFC 1035 §3.1: a name has 255 octets, so 127 labels of one letter beside the root.
const LABELS: usize = 127;

const LOAD_OCTET: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
/// The same at X + operand.
const LOAD_OCTET_AT_X: u16 = 0x50;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_CONSTANT: u16 = 0x00;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const A_TO_X: u16 = 0x07;
const X_TO_A: u16 = 0x87;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ABOVE: u16 = 0x25;
const IF_ANY_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

const UDP: u32 = 17;
const UDP_HEADER: u32 = 8;
const DNS_HEADER: u32 = 12;
const DNS: u32 = 53;
const AAAA: u32 = 28;

/// The program: returns all ones for a match, else 0. A load beyond the packet's end returns 0, too.
///
/// A match is an unfragmented UDP datagram to port 53, IPv4 or IPv6 without extension headers, that
/// holds a standard query (RFC 1035 §4.1.1: QR 0, OPCODE 0) with one question, of type AAAA.
pub fn program() -> Vec<Instruction> {
    let mut p = Assembly::default();
    p.op(LOAD_OCTET, NETWORK).op(AND, 0xf0);
    let v4 = p.branch(IF_EQUAL, 0x40);
    p.require(IF_EQUAL, 0x60);
    // IPv6 (RFC 8200 §3).
    p.op(LOAD_OCTET, NETWORK.wrapping_add(6)).require(IF_EQUAL, UDP).op(LOAD_CONSTANT, 40);
    let to_udp = p.jump();
    // IPv4 (RFC 791 §3.1).
    p.land(v4).op(LOAD_OCTET, NETWORK.wrapping_add(9)).require(IF_EQUAL, UDP);
    p.op(LOAD_HALF, NETWORK.wrapping_add(6)).refuse(IF_ANY_SET, 0x3fff);
    p.op(LOAD_OCTET, NETWORK).op(AND, 0x0f).op(SHIFT_LEFT, 2);
    p.land(to_udp).op(A_TO_X, 0);
    // X: the network header's length.
    p.op(LOAD_HALF_AT_X, NETWORK.wrapping_add(2)).require(IF_EQUAL, DNS);
    p.op(LOAD_HALF_AT_X, NETWORK.wrapping_add(UDP_HEADER + 2)).refuse(IF_ANY_SET, 0xf800);
    p.op(LOAD_HALF_AT_X, NETWORK.wrapping_add(UDP_HEADER + 4)).require(IF_EQUAL, 1);
    p.op(X_TO_A, 0).op(ADD, UDP_HEADER + DNS_HEADER).op(A_TO_X, 0);
    // X: where the next label is, or the root.
    let mut at_root = Vec::new();
    for _ in 0..LABELS {
        p.op(LOAD_OCTET_AT_X, NETWORK);
        at_root.push(p.branch(IF_EQUAL, 0));
        // No question needs compression, and it would hide the type's place.
        p.refuse(IF_ABOVE, 63);
        p.op(ADD_X, 0).op(ADD, 1).op(A_TO_X, 0);
    }
    p.op(LOAD_OCTET_AT_X, NETWORK).require(IF_EQUAL, 0);
    for branch in at_root {
        p.land(branch);
    }
    p.op(LOAD_HALF_AT_X, NETWORK.wrapping_add(1)).require(IF_EQUAL, AAAA);
    p.op(RETURN, u32::MAX);
    p.finish()
}

/// The program in the form in which the kernel takes it.
pub fn octets() -> Vec<u8> {
    let octets = |i: Instruction| {
        let [c0, c1] = i.code.to_ne_bytes();
        let [o0, o1, o2, o3] = i.operand.to_ne_bytes();
        [c0, c1, i.if_true, i.if_false, o0, o1, o2, o3]
    };
    program().into_iter().flat_map(octets).collect()
}

/// Instructions whose long jumps are known when they land.
#[derive(Default)]
struct Assembly {
    done: Vec<Instruction>,
    /// Long jumps to the place where nothing matches, at the end.
    misses: Vec<Jump>,
}

/// The place of a jump that has not landed yet.
struct Jump(usize);

impl Assembly {
    fn op(&mut self, code: u16, operand: u32) -> &mut Assembly {
        self.done.push(Instruction { code, if_true: 0, if_false: 0, operand });
        self
    }

    fn jump(&mut self) -> Jump {
        self.op(JUMP, 0);
        Jump(self.done.len() - 1)
    }

    /// Jumps if the comparison holds; comparisons alone do not reach far enough.
    fn branch(&mut self, comparison: u16, operand: u32) -> Jump {
        self.done.push(Instruction { code: comparison, if_true: 0, if_false: 1, operand });
        self.jump()
    }

    /// Nothing matches if the comparison holds.
    fn refuse(&mut self, comparison: u16, operand: u32) -> &mut Assembly {
        let miss = self.branch(comparison, operand);
        self.misses.push(miss);
        self
    }

    /// Nothing matches unless the comparison holds.
    fn require(&mut self, comparison: u16, operand: u32) -> &mut Assembly {
        self.done.push(Instruction { code: comparison, if_true: 1, if_false: 0, operand });
        let miss = self.jump();
        self.misses.push(miss);
        self
    }

    /// The jump ends at the next instruction.
    fn land(&mut self, jump: Jump) -> &mut Assembly {
        let distance = self.done.len() - jump.0 - 1;
        self.done[jump.0].operand = u32::try_from(distance).unwrap_or(u32::MAX);
        self
    }

    fn finish(mut self) -> Vec<Instruction> {
        for miss in std::mem::take(&mut self.misses) {
            self.land(miss);
        }
        self.op(RETURN, 0);
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::time::Duration;

    use socket2::{SockFilter, SockRef};

    /// A message with one question.
    fn message(flags: u16, questions: u16, name: &[u8], kind: u16) -> Vec<u8> {
        let mut octets = vec![0x12, 0x34];
        for half in [flags, questions, 0, 0, 0] {
            octets.extend(half.to_be_bytes());
        }
        octets.extend(name);
        octets.extend(kind.to_be_bytes());
        octets.extend([0, 1]);
        octets
    }

    fn name(labels: &[usize]) -> Vec<u8> {
        let mut octets = Vec::new();
        for length in labels {
            octets.push(u8::try_from(*length).unwrap());
            octets.extend(std::iter::repeat_n(b'x', *length));
        }
        octets.push(0);
        octets
    }

    /// The kernel itself runs the program, on packets that arrive at a socket.
    struct Kernel {
        socket: UdpSocket,
        client: UdpSocket,
    }

    impl Kernel {
        /// The socket has a port that the kernel chose: the program is asked about that one.
        fn new(host: &str) -> Kernel {
            let host: IpAddr = host.parse().unwrap();
            let socket = UdpSocket::bind((host, 0)).unwrap();
            let port = u32::from(socket.local_addr().unwrap().port());
            let mut program = program();
            let asked: Vec<usize> = (0..program.len())
                .filter(|at| program[*at].operand == DNS && program[*at].code == IF_EQUAL)
                .collect();
            assert_eq!(asked.len(), 1);
            program[asked[0]].operand = port;
            let program: Vec<SockFilter> = program
                .into_iter()
                .map(|i| SockFilter::new(i.code, i.if_true, i.if_false, i.operand))
                .collect();
            SockRef::from(&socket).attach_filter(&program).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            Kernel { socket, client: UdpSocket::bind((host, 0)).unwrap() }
        }

        /// Whether `message` matches: it comes through the filter before a marker that does.
        fn matches(&self, message: &[u8]) -> bool {
            let to: SocketAddr = self.socket.local_addr().unwrap();
            let marker = self::message(0, 1, &[0], 28);
            self.client.send_to(message, to).unwrap();
            self.client.send_to(&marker, to).unwrap();
            let mut buffer = [0; 2048];
            let (length, _) = self.socket.recv_from(&mut buffer).unwrap();
            let matched = buffer[..length] == *message;
            if matched {
                let (length, _) = self.socket.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..length], marker);
            }
            matched
        }
    }

    const RD: u16 = 0x0100;

    #[test]
    fn the_kernel_finds_aaaa_behind_names_of_every_length() {
        for host in ["127.0.0.1", "::1"] {
            let kernel = Kernel::new(host);
            let long: Vec<usize> = vec![1; 127];
            let longest = [63, 63, 63, 61];
            for labels in [&[][..], &[1], &[3, 7, 7, 3, 7, 5], &[63, 63], &long, &longest] {
                let name = name(labels);
                assert!(name.len() <= 255);
                for (kind, expected) in [(28, true), (1, false), (65, false), (0x1c00, false)] {
                    let found = kernel.matches(&message(RD, 1, &name, kind));
                    assert_eq!(found, expected, "{host} {labels:?} {kind}");
                }
                let with_opt = [message(RD, 1, &name, 28), vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
                assert!(kernel.matches(&with_opt));
            }
        }
    }

    #[test]
    fn the_kernel_lets_all_else_pass() {
        let kernel = Kernel::new("127.0.0.1");
        let name = name(&[3, 3]);
        for (what, message) in [
            ("a response", message(0x8180, 1, &name, 28)),
            ("a notification", message(0x2000, 1, &name, 28)),
            ("no question", message(RD, 0, &name, 28)),
            ("two questions", message(RD, 2, &name, 28)),
            ("a compressed name", message(RD, 1, &[0xc0, 12], 28)),
            ("a label type of long ago", message(RD, 1, &[0x41, 0, 0], 28)),
            ("a name without an end", message(RD, 1, &self::name(&[1; 128]), 28)),
            ("a cut name", message(RD, 1, &[9, b'x'], 28)),
            ("no type", message(RD, 1, &name, 28)[..12 + name.len() + 1].to_vec()),
            ("a header alone", message(RD, 1, &[], 0)[..12].to_vec()),
            ("five octets", vec![28; 5]),
            ("nothing", Vec::new()),
            ("AAAA in the name", message(RD, 1, &[4, 0, 28, 0, 1, 0], 1)),
        ] {
            assert!(!kernel.matches(&message), "{what}");
        }
    }

    #[test]
    fn the_kernel_takes_no_longer_program() {
        // BPF_MAXINSNS.
        assert!(program().len() < 4096);
        assert_eq!(octets().len(), program().len() * 8);
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
