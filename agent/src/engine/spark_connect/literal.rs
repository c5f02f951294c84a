//! The values of a statement's named parameters: from JSON to Spark's literals.

use serde_json::Value;
use spark_connect_proto::expression::literal::LiteralType;
use spark_connect_proto::expression::{ExprType, Literal};
use spark_connect_proto::{DataType, Expression, data_type};

/// Text, booleans, numbers and null become literals of Spark's types: a whole number is an `INT`
/// where it fits, as in PySpark (`LIMIT :n` takes nothing else), then a `BIGINT`; any other number a
/// `DOUBLE`.
///
/// # Errors
/// Lists, objects and whole numbers beyond `BIGINT`, with what to write instead.
pub(super) fn literal(value: &Value) -> Result<Expression, &'static str> {
    let literal = match value {
        Value::Null => LiteralType::Null(DataType {
            kind: Some(data_type::Kind::Null(data_type::Null::default())),
        }),
        Value::Bool(flag) => LiteralType::Boolean(*flag),
        Value::String(text) => LiteralType::String(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => match i32::try_from(whole) {
                Ok(small) => LiteralType::Integer(small),
                Err(_) => LiteralType::Long(whole),
            },
            (None, Some(broken)) if number.is_f64() => LiteralType::Double(broken),
            _ => {
                return Err(
                    "is more than a BIGINT holds: write it as text and CAST(:name AS DECIMAL(38, 0))",
                );
            }
        },
        Value::Array(_) | Value::Object(_) => {
            return Err(
                "a list or an object is no parameter: write it as JSON text and from_json(:name, '...')",
            );
        }
    };
    Ok(Expression {
        common: None,
        expr_type: Some(ExprType::Literal(Literal {
            literal_type: Some(literal),
            ..Literal::default()
        })),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: &Value) -> Option<LiteralType> {
        match literal(value).unwrap().expr_type {
            Some(ExprType::Literal(literal)) => literal.literal_type,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_becomes_literals() {
        assert_eq!(of(&json!("x")), Some(LiteralType::String("x".to_owned())));
        assert_eq!(of(&json!(true)), Some(LiteralType::Boolean(true)));
        assert_eq!(of(&json!(-7)), Some(LiteralType::Integer(-7)));
        assert_eq!(
            of(&json!(3_000_000_000_i64)),
            Some(LiteralType::Long(3_000_000_000))
        );
        assert_eq!(of(&json!(0.5)), Some(LiteralType::Double(0.5)));
        assert_eq!(of(&json!(1e300)), Some(LiteralType::Double(1e300)));
        assert!(matches!(of(&json!(null)), Some(LiteralType::Null(_))));
    }

    #[test]
    fn what_has_no_literal_says_what_to_write() {
        for (value, word) in [
            (json!([1]), "JSON text"),
            (json!({"a": 1}), "JSON text"),
            (json!(u64::MAX), "CAST"),
        ] {
            assert!(literal(&value).unwrap_err().contains(word), "{value}");
        }
    }
}
