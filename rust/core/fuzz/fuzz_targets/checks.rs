//! What holds of every reply, whatever its bytes.

#![allow(dead_code, reason = "each target uses a part of it")]

use casdk_core::error::Error;
use casdk_core::matrix::{Rows, place};
use casdk_core::reply::{Numbers, Reply};
use half::f16;

/// More would be the matrix of the target, not of the reply.
const MOST_NUMBERS: usize = 1 << 20;
const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

pub fn is_of_reply(error: &Error, message: &[u8]) {
    assert!(
        matches!(error, Error::Reply { offset, .. } if *offset <= message.len()),
        "{error:?}"
    );
}

pub fn holds(reply: &Reply, message: &[u8]) {
    assert!(reply.parameters.end <= message.len());
    let mut width = 0;
    for row in &reply.rows {
        assert!(row.span.start <= row.id.start && row.id.end <= row.span.end || row.id.is_empty());
        assert!(row.span.end <= message.len());
        if let Some(numbers) = &row.embedding {
            width = numbers.count();
            match numbers {
                Numbers::Raw(range, _) => assert!(range.end <= row.span.end),
                Numbers::Text(range, _) => assert!(range.end <= row.span.end),
            }
        }
    }
    let rows = reply.rows.len();
    if rows * width > MOST_NUMBERS {
        return;
    }
    let sent = rows + 1;
    let (mut singles, mut halves) = (vec![0f32; sent * width], vec![f16::ZERO; sent * width]);
    let placed = place(
        reply,
        message,
        &mut singles,
        width,
        Rows::From(0),
        sent,
        REQUEST_ID,
    );
    let again = place(
        reply,
        message,
        &mut halves,
        width,
        Rows::From(0),
        sent,
        REQUEST_ID,
    );
    assert_eq!(placed, again);
    match placed {
        Ok(missing) => assert!(missing.len() <= sent),
        Err(Error::Unfit(_)) => {}
        Err(error) => is_of_reply(&error, message),
    }
}
