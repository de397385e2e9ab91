//! What is kept of an image beside it: its measurements and size, in `FILE.pcrs.json`.

use serde::{Deserialize, Serialize};

use crate::measure::Measurements;

/// The measurements and size of an image. It names no file and no machine: two builders of one image have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The registers.
    #[serde(flatten)]
    pub measurements: Measurements,
    /// Bytes of the image.
    pub size: u64,
}

impl Summary {
    /// One line of JSON, without a line break.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers and text always encode")
    }

    /// Reads what [`Summary::line`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Pcr;

    #[test]
    fn a_summary_is_one_line_and_reads_back() {
        let measurements = Measurements { pcr0: Pcr([1; 48]), pcr1: Pcr([2; 48]), pcr2: Pcr([3; 48]), pcr8: None };
        let unsigned = Summary { measurements, size: 1234 };
        let digits = |byte: &str| byte.repeat(48);
        let expected =
            format!(r#"{{"PCR0":"{}","PCR1":"{}","PCR2":"{}","size":1234}}"#, digits("01"), digits("02"), digits("03"));
        assert_eq!(unsigned.line(), expected);
        assert_eq!(Summary::read(&expected).unwrap(), unsigned);
        let signed = Summary { measurements: Measurements { pcr8: Some(Pcr([8; 48])), ..measurements }, size: 1 };
        assert_eq!(Summary::read(&signed.line()).unwrap(), signed);
        assert!(Summary::read(&expected.replace("0303", "03")).is_err());
        assert!(Summary::read("{}").is_err());
    }
}
