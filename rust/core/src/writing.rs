//! Writing a batch until a message is whole: that an item is bad may be found only while its bytes are written.

use crate::load::Failure;

/// The result of writing a batch.
#[derive(Debug)]
pub enum Written<T> {
    /// The message.
    Whole(T),
    /// Nothing of use: items turned out bad only while they were written.
    Broken {
        /// Those that had been left out before.
        left_out: Vec<Failure>,
        /// Those that were found now.
        found: Vec<Failure>,
    },
}

/// Writes a batch, and again without what turns out bad while it is written, until a message is whole.
///
/// # Arguments
///
/// * `write`: loads the batch without the failures known, as [`load`](crate::load::load) does, and writes it.
///
/// # Errors
///
/// Those of `write`.
pub fn write_whole<T, E>(
    mut write: impl FnMut(&[Failure]) -> Result<Written<T>, E>,
) -> Result<T, E> {
    let mut known = Vec::new();
    loop {
        match write(&known)? {
            Written::Whole(message) => return Ok(message),
            Written::Broken { left_out, found } => known = [left_out, found].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::empty;

    #[test]
    fn a_batch_is_written_again_without_what_was_bad() {
        let failure = |position| Failure {
            position,
            error: empty(),
        };
        let mut known = Vec::new();
        let written: Result<_, ()> = write_whole(|failures| {
            known.push(failures.iter().map(|bad| bad.position).collect::<Vec<_>>());
            Ok(match failures.len() {
                0 => Written::Broken {
                    left_out: vec![failure(3)],
                    found: vec![failure(1), failure(2)],
                },
                3 => Written::Broken {
                    left_out: failures.to_vec(),
                    found: vec![failure(0)],
                },
                count => Written::Whole(count),
            })
        });
        assert_eq!(written, Ok(4));
        assert_eq!(known, [vec![], vec![3, 1, 2], vec![3, 1, 2, 0]]);
        assert_eq!(write_whole::<(), _>(|_| Err("no memory")), Err("no memory"));
    }
}
