//! `ExecutePlan` with a plan that is never read: its bytes are spliced into the request.
//!
//! To decode a producer's plan and encode it again would lose what a newer Spark put into it, and
//! fails on long chains of operators, which nest deeper than a decoder here goes.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use spark_connect_proto::{ExecutePlanRequest, ExecutePlanResponse};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The number of the field `plan` in the request.
const PLAN: u32 = 3;

/// A request with its plan, as it is sent. The request itself has none.
pub(super) fn spliced(request: &ExecutePlanRequest, plan: &[u8]) -> Bytes {
    debug_assert!(request.plan.is_none(), "the plan comes from the bytes");
    let mut sent = BytesMut::with_capacity(request.encoded_len() + plan.len() + 16);
    request
        .encode(&mut sent)
        .unwrap_or_else(|_| unreachable!("the buffer grows"));
    encode_key(PLAN, WireType::LengthDelimited, &mut sent);
    encode_varint(plan.len() as u64, &mut sent);
    sent.put_slice(plan);
    sent.freeze()
}

/// Sends bytes as they are and reads what `ExecutePlan` answers.
#[derive(Debug, Default)]
pub(super) struct SpliceCodec;

impl Codec for SpliceCodec {
    type Encode = Bytes;
    type Decode = ExecutePlanResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for SpliceCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for SpliceCodec {
    type Item = ExecutePlanResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<ExecutePlanResponse>, Status> {
        ExecutePlanResponse::decode(from)
            .map(Some)
            .map_err(|error| Status::internal(format!("the reply can't be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use spark_connect_proto::{Plan, Relation, Sql, plan, relation};

    use super::*;

    #[test]
    fn the_request_holds_the_plan_as_it_came() {
        let request = ExecutePlanRequest {
            session_id: "s".to_owned(),
            operation_id: Some("o".to_owned()),
            tags: vec!["t".to_owned()],
            ..ExecutePlanRequest::default()
        };
        let sql = Sql {
            query: "SELECT 1".to_owned(),
            ..Sql::default()
        };
        let plan = Plan {
            op_type: Some(plan::OpType::Root(Relation {
                common: None,
                rel_type: Some(relation::RelType::Sql(sql)),
            })),
        };
        let sent = spliced(&request, &plan.encode_to_vec());
        let whole = ExecutePlanRequest {
            plan: Some(plan),
            ..request.clone()
        };
        assert_eq!(ExecutePlanRequest::decode(sent).unwrap(), whole);
    }

    #[test]
    fn what_no_decoder_here_knows_arrives_untouched() {
        let unknown = [0xfa, 0xff, 0x03, 0x03, 1, 2, 3];
        let sent = spliced(&ExecutePlanRequest::default(), &unknown);
        assert_eq!(&sent[..2], [3 * 8 + 2, 7]);
        assert_eq!(&sent[2..], unknown);
    }
}
