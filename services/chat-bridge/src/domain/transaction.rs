//! Ids of what the bridge sends. They derive from what is sent, so a repeat is recognised as one.

use schemas::EventId;

/// The id under which a part of something is sent: the channel takes a second send with this id for the first one.
pub fn id(cause: &EventId, part: usize) -> String {
    cause.derive(&format!("send/{part}")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_part_has_the_same_id_and_no_other_has_it() {
        let said = EventId::new("e/0");
        assert_eq!(id(&said, 0), id(&said, 0));
        assert_ne!(id(&said, 0), id(&said, 1));
        assert_ne!(id(&said, 0), id(&EventId::new("e/1"), 0));
    }
}
