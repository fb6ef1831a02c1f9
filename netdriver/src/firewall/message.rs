//! nfnetlink messages for nf_tables, and the socket that commits them as one transaction.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h` and `nfnetlink.h`. Integers in attributes are
//! big-endian unless said otherwise.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP: u16 = 0x300;
const NLA_F_NESTED: u16 = 0x8000;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const SUBSYS_NFTABLES: u16 = 10;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

pub(crate) const NFPROTO_INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;

const SET_F_INTERVAL: u32 = 0x4;
const SET_F_MAP: u32 = 0x8;
const ELEM_F_INTERVAL_END: u32 = 0x1;

/// A list of netlink attributes under construction.
#[derive(Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Attributes {
        let length =
            u16::try_from(value.len() + 4).expect("attributes built here stay below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Attributes {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nested(
        &mut self,
        kind: u16,
        build: impl FnOnce(&mut Attributes),
    ) -> &mut Attributes {
        let mut inner = Attributes::default();
        build(&mut inner);
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Who may change a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    Shared = 0,
    /// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: only the socket that made it, until that is
    /// closed; then whoever comes next. `nft flush ruleset` passes it over. Since Linux 6.9.
    Ours = 0x2 | 0x4,
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    /// What the key maps to; empty in a plain set.
    pub(crate) data: Vec<u8>,
    /// The first key after an interval.
    pub(crate) interval_end: bool,
}

impl Element {
    pub(crate) fn key(key: Vec<u8>) -> Element {
        Element {
            key,
            data: Vec::new(),
            interval_end: false,
        }
    }
}

/// A set or map to create. The types matter to `nft list` alone; the kernel looks at the lengths.
pub(crate) struct SetDefinition {
    pub(crate) name: &'static str,
    pub(crate) key_type: u32,
    pub(crate) key_bytes: u32,
    /// Type and length of the data of a map.
    pub(crate) data: Option<(u32, u32)>,
    pub(crate) interval: bool,
    /// The key is not a number in network order: `nft list` must be told.
    pub(crate) host_order: bool,
}

/// A base chain to create.
pub(crate) struct ChainDefinition {
    pub(crate) name: &'static str,
    /// `filter`, `nat` or `route`.
    pub(crate) kind: &'static str,
    pub(crate) hook: u32,
    pub(crate) priority: i32,
}

/// The messages of one transaction: all of them take effect, or none.
pub(crate) struct Transaction<'a> {
    table: &'a str,
    family: u8,
    messages: Vec<(u16, u16, Vec<u8>)>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn new(family: u8, table: &'a str) -> Transaction<'a> {
        Transaction {
            table,
            family,
            messages: Vec::new(),
        }
    }

    /// How many rules it adds.
    pub(crate) fn rules(&self) -> usize {
        let rule = SUBSYS_NFTABLES << 8 | NEWRULE;
        self.messages
            .iter()
            .filter(|(kind, ..)| *kind == rule)
            .count()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adopts or keeps an existing table.
    pub(crate) fn add_table(&mut self, ownership: Ownership) {
        self.table(NLM_F_CREATE, ownership);
    }

    /// Fails the transaction with `EEXIST` if there is a table of this name.
    pub(crate) fn add_new_table(&mut self) {
        self.table(NLM_F_CREATE | NLM_F_EXCL, Ownership::Shared);
    }

    fn table(&mut self, flags: u16, ownership: Ownership) {
        let mut attributes = Attributes::default();
        attributes.string(1, self.table).u32(2, ownership as u32);
        self.push(NEWTABLE, flags, attributes);
    }

    pub(crate) fn delete_table(&mut self) {
        let mut attributes = Attributes::default();
        attributes.string(1, self.table);
        self.push(DELTABLE, 0, attributes);
    }

    pub(crate) fn add_chain(&mut self, chain: &ChainDefinition) {
        let mut attributes = Attributes::default();
        attributes
            .string(1, self.table)
            .string(3, chain.name)
            .nested(4, |hook| {
                hook.u32(1, chain.hook)
                    .bytes(2, &chain.priority.to_be_bytes());
            })
            // NF_ACCEPT: what we do not know is not ours to drop.
            .u32(5, 1)
            .string(7, chain.kind);
        self.push(NEWCHAIN, NLM_F_CREATE, attributes);
    }

    pub(crate) fn add_rule(&mut self, chain: &str, expressions: &[Vec<u8>]) {
        let mut attributes = Attributes::default();
        attributes
            .string(1, self.table)
            .string(2, chain)
            .nested(4, |list| {
                for expression in expressions {
                    list.bytes(1 | NLA_F_NESTED, expression);
                }
            });
        self.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attributes);
    }

    pub(crate) fn add_set(&mut self, set: &SetDefinition) {
        let id = u32::try_from(self.messages.len()).expect("a transaction is built in memory");
        let mut flags = 0;
        if set.interval {
            flags |= SET_F_INTERVAL;
        }
        if set.data.is_some() {
            flags |= SET_F_MAP;
        }
        let mut attributes = Attributes::default();
        attributes
            .string(1, self.table)
            .string(2, set.name)
            .u32(3, flags)
            .u32(4, set.key_type)
            .u32(5, set.key_bytes)
            .u32(10, id);
        if let Some((kind, bytes)) = set.data {
            attributes.u32(6, kind).u32(7, bytes);
        }
        if set.host_order {
            // NFTNL_UDATA_SET_KEYBYTEORDER: 4 bytes, BYTEORDER_HOST_ENDIAN. Without it nft(8) shows
            // names as empty.
            attributes.bytes(13, &[0, 4, 1, 0, 0, 0]);
        }
        self.push(NEWSET, NLM_F_CREATE, attributes);
    }

    pub(crate) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        // The list is one attribute, whose length has 16 bits.
        for part in elements.chunks(256) {
            let mut attributes = Attributes::default();
            attributes
                .string(1, self.table)
                .string(2, set)
                .nested(3, |list| {
                    for element in part {
                        list.nested(1, |item| {
                            item.nested(1, |key| {
                                key.bytes(1, &element.key);
                            });
                            if !element.data.is_empty() {
                                item.nested(2, |data| {
                                    data.bytes(1, &element.data);
                                });
                            }
                            if element.interval_end {
                                item.u32(3, ELEM_F_INTERVAL_END);
                            }
                        });
                    }
                });
            self.push(kind, flags, attributes);
        }
    }

    fn push(&mut self, kind: u16, flags: u16, attributes: Attributes) {
        self.messages
            .push((SUBSYS_NFTABLES << 8 | kind, flags, attributes.into_bytes()));
    }
}

/// A netfilter netlink socket of the network namespace of the thread that opened it.
pub(crate) struct Nfnetlink {
    socket: Socket,
    sequence: u32,
}

impl Nfnetlink {
    pub(crate) fn open() -> io::Result<Nfnetlink> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Nfnetlink {
            socket,
            sequence: 0,
        })
    }

    /// Commits a transaction; the first error of any of its messages undoes it whole.
    pub(crate) fn commit(&mut self, transaction: &Transaction<'_>) -> io::Result<()> {
        if transaction.is_empty() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        self.append(
            &mut buffer,
            NFNL_MSG_BATCH_BEGIN,
            NLM_F_REQUEST,
            0,
            SUBSYS_NFTABLES,
            &[],
        );
        let last = transaction.messages.len() - 1;
        for (index, (kind, flags, body)) in transaction.messages.iter().enumerate() {
            let ack = if index == last { NLM_F_ACK } else { 0 };
            self.append(
                &mut buffer,
                *kind,
                NLM_F_REQUEST | flags | ack,
                transaction.family,
                0,
                body,
            );
        }
        self.append(
            &mut buffer,
            NFNL_MSG_BATCH_END,
            NLM_F_REQUEST,
            0,
            SUBSYS_NFTABLES,
            &[],
        );
        if buffer.len() > 100_000 {
            // Refused with EMSGSIZE otherwise; needs CAP_NET_ADMIN, which nf_tables needs anyway.
            rustix::net::sockopt::set_socket_send_buffer_size_force(
                &self.socket,
                buffer.len() * 2,
            )?;
        }
        self.socket.send(&buffer, 0)?;
        self.answers(|_, _| {})
    }

    /// Sends one message outside a transaction and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        body: &[u8],
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        self.append(
            &mut buffer,
            kind,
            NLM_F_REQUEST | NLM_F_ACK | flags,
            family,
            0,
            body,
        );
        self.socket.send(&buffer, 0)?;
        self.answers(|_, _| {})
    }

    /// Sends one message and calls `each` with its one answer.
    pub(crate) fn ask(
        &mut self,
        kind: u16,
        family: u8,
        body: &[u8],
        mut each: impl FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        self.append(&mut buffer, kind, flags, family, 0, body);
        self.socket.send(&buffer, 0)?;
        self.answers(&mut each)
    }

    /// Calls `each` with every message of a dump: the address family, then its attributes.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        body: &[u8],
        mut each: impl FnMut(u8, &[u8]),
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        self.append(
            &mut buffer,
            kind,
            NLM_F_REQUEST | NLM_F_DUMP,
            family,
            0,
            body,
        );
        self.socket.send(&buffer, 0)?;
        self.answers(&mut each)
    }

    /// The elements of a set or map; `NotFound` when it or its table is not there.
    pub(crate) fn elements(
        &mut self,
        family: u8,
        table: &str,
        set: &str,
    ) -> io::Result<Vec<Element>> {
        const ELEMENTS: u16 = 3;
        let mut attributes = Attributes::default();
        attributes.string(1, table).string(2, set);
        let mut found = Vec::new();
        self.dump(
            SUBSYS_NFTABLES << 8 | GETSETELEM,
            family,
            &attributes.into_bytes(),
            |_, answer| {
                let list = ReadAttributes::find(answer, ELEMENTS).unwrap_or_default();
                for (_, item) in ReadAttributes(list) {
                    let value = |kind| {
                        let data = ReadAttributes::find(item, kind)?;
                        Some(ReadAttributes::find(data, 1)?.to_vec())
                    };
                    found.push(Element {
                        key: value(1).unwrap_or_default(),
                        data: value(2).unwrap_or_default(),
                        interval_end: ReadAttributes::find(item, 3)
                            .is_some_and(|flags| number(flags) & ELEM_F_INTERVAL_END != 0),
                    });
                }
            },
        )?;
        Ok(found)
    }

    /// How many rules a table has; 0 also when it is not there.
    pub(crate) fn count_rules(&mut self, family: u8, table: &str) -> io::Result<usize> {
        let mut attributes = Attributes::default();
        attributes.string(1, table);
        let mut count = 0;
        let dumped = self.dump(
            SUBSYS_NFTABLES << 8 | GETRULE,
            family,
            &attributes.into_bytes(),
            |_, rule| {
                // Older kernels do not filter by table.
                if ReadAttributes::find(rule, 1).is_some_and(|name| text(name) == table) {
                    count += 1;
                }
            },
        );
        match dumped {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            result => result.map(|()| count),
        }
    }

    /// Chains of every table of every family.
    pub(crate) fn dump_chains(&mut self, each: impl FnMut(u8, &[u8])) -> io::Result<()> {
        self.dump(SUBSYS_NFTABLES << 8 | GETCHAIN, 0, &[], each)
    }

    /// Reads until the end of a dump or the acknowledgement. The kernel answered before `send`
    /// returned, so a transaction without any answer cannot happen, and a queue that is empty after
    /// an error ends it.
    fn answers(&mut self, mut each: impl FnMut(u8, &[u8])) -> io::Result<()> {
        let mut result = Ok(());
        loop {
            let flags = if result.is_err() {
                libc::MSG_DONTWAIT
            } else {
                0
            };
            let mut bytes = Vec::with_capacity(65536);
            match self.socket.recv(&mut bytes, flags) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return result,
                Err(error) => return result.and(Err(error)),
            }
            for (kind, sequence, body) in Messages(&bytes) {
                match kind {
                    // NLMSG_ERROR: an errno, 0 for an acknowledgement.
                    2 => {
                        let code = body.get(..4).map_or(0, |code| {
                            i32::from_ne_bytes([code[0], code[1], code[2], code[3]])
                        });
                        if code == 0 {
                            return result;
                        }
                        if result.is_ok() {
                            result = Err(io::Error::from_raw_os_error(-code));
                        }
                    }
                    // NLMSG_DONE
                    3 => return result,
                    _ if sequence == self.sequence && body.len() >= 4 => each(body[0], &body[4..]),
                    _ => {}
                }
            }
        }
    }

    fn append(
        &mut self,
        buffer: &mut Vec<u8>,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        body: &[u8],
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(20 + body.len()).expect("messages built here stay below 64 KiB");
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&flags.to_ne_bytes());
        buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        buffer.extend_from_slice(&0u32.to_ne_bytes());
        buffer.extend_from_slice(&[family, 0]);
        buffer.extend_from_slice(&resource.to_be_bytes());
        buffer.extend_from_slice(body);
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }
}

/// Iterates over netlink messages: kind, sequence number, body behind the header.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..16)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        let body = self.0.get(16..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    }
}

/// Iterates over attributes: kind without flags, value.
pub(crate) struct ReadAttributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for ReadAttributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> ReadAttributes<'a> {
    /// The value of the first attribute of this kind.
    pub(crate) fn find(attributes: &'a [u8], kind: u16) -> Option<&'a [u8]> {
        ReadAttributes(attributes)
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

/// A string attribute without its terminating zero.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('\0')
        .to_owned()
}

/// A big-endian number, 0 when it is too short.
pub(crate) fn number(value: &[u8]) -> u32 {
    value.get(..4).map_or(0, |bytes| {
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    })
}
