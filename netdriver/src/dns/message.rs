//! From a query's bytes to a reply's bytes, or to the decision to ask somebody else. Pure; whatever
//! the bytes are.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Answer, Question};

/// How long a client may keep an answer: names move with their containers, and one that is gone
/// shall not be found any more after a second.
const TTL_SECONDS: u32 = 1;
/// The largest answer to a client that does not say how much it takes (RFC 1035).
const UDP_BYTES: usize = 512;
/// What we say we take ourselves: fits every path's MTU (DNS flag day 2020).
const EDNS_BYTES: u16 = 1232;
const HEADER_BYTES: usize = 12;

/// How the client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Send(Vec<u8>),
    /// Ask the upstream servers.
    Forward,
    /// Not a query: answering could start a loop.
    Ignore,
}

/// Answers a query out of `lookup`, which gets the name in lower case without its final dot.
pub(super) fn answer(
    query: &[u8],
    transport: Transport,
    lookup: impl FnOnce(&str, Question) -> Answer,
) -> Reply {
    // A response, or too short to have an id.
    if query.len() < HEADER_BYTES || query[2] & 0x80 != 0 {
        return Reply::Ignore;
    }
    let Ok(request) = Message::from_vec(query) else {
        return Reply::Send(refuse(query, ResponseCode::FormErr));
    };
    if request.metadata.op_code != OpCode::Query {
        return Reply::Send(refuse(query, ResponseCode::NotImp));
    }
    let [asked] = request.queries.as_slice() else {
        return Reply::Send(refuse(query, ResponseCode::FormErr));
    };
    if asked.query_class() != DNSClass::IN {
        return Reply::Forward;
    }
    let question = match asked.query_type() {
        RecordType::A => Question::Ipv4,
        RecordType::AAAA => Question::Ipv6,
        RecordType::PTR => Question::Pointer,
        _ => Question::Other,
    };
    let name = asked.name().to_lowercase().to_ascii();
    let records: Vec<RData> = match lookup(name.trim_end_matches('.'), question) {
        Answer::Unknown => return Reply::Forward,
        Answer::Empty => Vec::new(),
        Answer::Addresses(addresses) => addresses
            .into_iter()
            .map(|address| match address {
                IpAddr::V4(v4) => RData::A(A(v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
            })
            .collect(),
        // A container's name need not be a domain name; then it has no pointer.
        Answer::Name(name) => Name::from_ascii(format!("{name}."))
            .ok()
            .map(|name| RData::PTR(PTR(name)))
            .into_iter()
            .collect(),
    };

    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = true;
    response.add_answers(
        records
            .into_iter()
            .map(|data| Record::from_rdata(asked.name().clone(), TTL_SECONDS, data)),
    );
    response.add_query(asked.clone());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_BYTES);
        response.set_edns(edns);
    }
    let room = match (transport, &request.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).max(UDP_BYTES),
        (Transport::Udp, None) => UDP_BYTES,
    };
    let encoded = response.to_vec().and_then(|bytes| {
        if bytes.len() > room {
            response.truncate().to_vec()
        } else {
            Ok(bytes)
        }
    });
    Reply::Send(encoded.unwrap_or_else(|_| refuse(query, ResponseCode::ServFail)))
}

/// A reply without records. `query` holds at least a header; its question is repeated if it can be
/// read.
pub(super) fn refuse(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let id = u16::from_be_bytes([query[0], query[1]]);
    let mut response = Message::error_msg(id, OpCode::Query, code);
    response.metadata.message_type = MessageType::Response;
    response.metadata.recursion_desired = query[2] & 1 != 0;
    response.metadata.recursion_available = true;
    if let Ok(request) = Message::from_vec(query) {
        response.add_queries(request.queries.into_iter().take(1));
    }
    response.to_vec().unwrap_or_else(|_| {
        let mut header = query[..HEADER_BYTES].to_vec();
        header[2] |= 0x80;
        header[3] = 0x80 | code.low();
        header[4..].fill(0);
        header
    })
}

/// Whether `response` answers `query`: same id, a response, same question whatever the letters'
/// case.
pub(super) fn answers_query(query: &[u8], response: &[u8]) -> bool {
    if query.len() < HEADER_BYTES
        || response.len() < HEADER_BYTES
        || response[..2] != query[..2]
        || response[2] & 0x80 == 0
    {
        return false;
    }
    let questions = u16::from_be_bytes([response[4], response[5]]);
    if questions == 0 {
        // Servers that do not understand a query may leave the question out.
        return rcode(response) != 0;
    }
    let Some(end) = question_end(query) else {
        return false;
    };
    response
        .get(HEADER_BYTES..end)
        .is_some_and(|question| question.eq_ignore_ascii_case(&query[HEADER_BYTES..end]))
}

/// The response code without its extension.
pub(super) fn rcode(response: &[u8]) -> u8 {
    response.get(3).map_or(0, |byte| byte & 0x0f)
}

/// Where the first question ends; names in questions are not compressed.
fn question_end(query: &[u8]) -> Option<usize> {
    let mut position = HEADER_BYTES;
    loop {
        match *query.get(position)? {
            0 => break,
            length if length & 0xc0 != 0 => return None,
            length => position += usize::from(length) + 1,
        }
    }
    let end = position + 1 + 4;
    (end <= query.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(message: &Message, answer_with: Answer) -> Message {
        let bytes = message.to_vec().unwrap();
        match answer(&bytes, Transport::Udp, |_, _| answer_with) {
            Reply::Send(reply) => {
                assert!(answers_query(&bytes, &reply));
                Message::from_vec(&reply).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_is_answered_under_the_name_as_asked() {
        let request = query("WeB.", RecordType::A);
        let bytes = request.to_vec().unwrap();
        let Reply::Send(reply) = answer(&bytes, Transport::Udp, |name, question| {
            assert_eq!((name, question), ("web", Question::Ipv4));
            Answer::Addresses(vec!["10.0.0.2".parse().unwrap()])
        }) else {
            panic!("not answered")
        };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.answers[0].data, RData::A(A([10, 0, 0, 2].into())));
        assert_eq!(reply.answers[0].name.to_ascii(), "WeB.");
        assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
    }

    #[test]
    fn a_known_name_without_the_type_is_empty_and_not_an_error() {
        let reply = ask(&query("web.", RecordType::AAAA), Answer::Empty);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.answers.is_empty());
        let pointer = ask(
            &query("2.0.0.10.in-addr.arpa.", RecordType::PTR),
            Answer::Name("web.front".into()),
        );
        assert_eq!(pointer.answers[0].data.to_string(), "web.front.");
    }

    #[test]
    fn an_answer_too_long_for_the_client_is_truncated() {
        let many: Vec<IpAddr> = (0..200u8)
            .map(|last| IpAddr::from([10, 0, 0, last]))
            .collect();
        let request = query("web.", RecordType::A);
        let reply = ask(&request, Answer::Addresses(many.clone()));
        assert!(reply.metadata.truncation && reply.answers.is_empty());
        let bytes = request.to_vec().unwrap();
        let Reply::Send(reply) = answer(&bytes, Transport::Tcp, |_, _| Answer::Addresses(many))
        else {
            panic!("not answered")
        };
        assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 200);
    }

    #[test]
    fn what_is_not_a_plain_query_gets_its_proper_reply() {
        let mut response = query("web.", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        let mut notify = query("web.", RecordType::A);
        notify.metadata.op_code = OpCode::Notify;
        let mut two = query("web.", RecordType::A);
        two.add_query(Query::query(
            Name::from_ascii("db.").unwrap(),
            RecordType::A,
        ));
        let mut chaos = query("version.bind.", RecordType::TXT);
        chaos.queries[0].set_query_class(DNSClass::CH);
        let reply = |message: &Message| {
            answer(&message.to_vec().unwrap(), Transport::Udp, |_, _| {
                Answer::Empty
            })
        };
        assert_eq!(reply(&response), Reply::Ignore);
        assert_eq!(reply(&chaos), Reply::Forward);
        for (message, expected) in [
            (&notify, ResponseCode::NotImp),
            (&two, ResponseCode::FormErr),
        ] {
            let Reply::Send(bytes) = reply(message) else {
                panic!("not answered")
            };
            assert_eq!(
                Message::from_vec(&bytes).unwrap().metadata.response_code,
                expected
            );
        }
    }

    #[test]
    fn forged_responses_are_told_apart() {
        let bytes = query("web.example.", RecordType::A).to_vec().unwrap();
        let good = refuse(&bytes, ResponseCode::NXDomain);
        assert!(answers_query(&bytes, &good));
        let mut other_id = good.clone();
        other_id[0] ^= 1;
        let other_name = refuse(
            &query("web.examplf.", RecordType::A).to_vec().unwrap(),
            ResponseCode::NXDomain,
        );
        for forged in [&other_id, &other_name, &bytes, &good[..20].to_vec()] {
            assert!(!answers_query(&bytes, forged), "{forged:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Valid queries with bytes changed, cut and added: never a panic, and every reply can be
        /// parsed.
        #[test]
        fn hostile_queries_get_a_reply_or_silence(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
            cut in any::<prop::sample::Index>(), tail in prop::collection::vec(any::<u8>(), 0..40), keep in any::<bool>(),
        ) {
            let mut message = query("some.name.example.", RecordType::A);
            message.set_edns(Edns::new());
            let mut bytes = message.to_vec().unwrap();
            for (index, value) in flips {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
            if !keep {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend(tail);
            for transport in [Transport::Udp, Transport::Tcp] {
                if let Reply::Send(reply) = answer(&bytes, transport, |_, _| Answer::Addresses(vec![[10, 0, 0, 2].into()])) {
                    prop_assert_eq!(&reply[..2], &bytes[..2]);
                    prop_assert!(Message::from_vec(&reply).is_ok());
                }
            }
            let _ = answers_query(&bytes, &bytes);
        }
    }
}
