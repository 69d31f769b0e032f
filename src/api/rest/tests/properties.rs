//! Whatever comes in, JSON goes out; and what was put comes back.

use axum::http::Uri;
use proptest::prelude::*;

use super::*;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

/// JSON text as clients write it: numbers of any length, escapes, white space, members that come twice.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?",
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        r#""(\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]|[ !#-\[\]-~äΩ😀]){0,12}""#,
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let space = "[ \t\n\r]{0,2}";
        let list = (space, prop::collection::vec(inner.clone(), 0..5));
        let object = (space, prop::collection::vec(("[a-c]{0,2}", inner), 0..5));
        prop_oneof![
            list.prop_map(|(space, items)| format!("[{space}{}{space}]", items.join(&format!(",{space}")))),
            object.prop_map(|(space, members)| {
                let members: Vec<_> = members.iter().map(|(n, v)| format!("\"{n}\"{space}:{space}{v}")).collect();
                format!("{{{space}{}{space}}}", members.join(","))
            }),
        ]
    })
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let member =
        prop_oneof![Just("value"), Just("causal-metadata"), Just("other"), Just("val\\u0075e"), Just("\\ud800")];
    let object = prop::collection::vec((member, json_text()), 0..4).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    });
    let object = object.boxed();
    let cut = (object.clone(), any::<prop::sample::Index>()).prop_map(|(mut text, at)| {
        text.truncate(at.index(text.len()));
        text
    });
    prop_oneof![any::<Vec<u8>>(), json_text().prop_map(String::into_bytes), object, cut]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let start = prop_oneof![
        Just("/key-value-store/"),
        Just("/key-value-store"),
        Just("/key-value-store-view"),
        Just("/key-value-store-shard/shard-id-members/"),
        Just("/key-value-store-shard/shard-id-key-count/"),
        Just("/key-value-store-shard/add-member/"),
        Just("/key-value-store-shard/reshard"),
        Just("/admin/forget"),
        Just("/readyz"),
        Just("/")
    ];
    let rest = prop_oneof![any::<Vec<u8>>(), "[/%?.a-f0-9{}*:]{0,12}".prop_map(String::into_bytes)];
    (start, rest).prop_map(|(start, rest)| [start.as_bytes(), &rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_answer_is_json(
        method in prop_oneof!["GET", "PUT", "DELETE", "POST", "[A-Z!#$%&'*+.^_`|~-]{1,9}"],
        path in path(),
        body in body(),
        header in proptest::option::of(prop_oneof![any::<Vec<u8>>(), "[A-Za-z0-9_-]{0,40}".prop_map(String::into_bytes)]),
    ) {
        let Ok(uri) = Uri::try_from(path) else { return Ok(()) };
        let mut request = HttpRequest::builder().method(method.as_str()).uri(uri);
        if let Some(header) = header.and_then(|h| axum::http::HeaderValue::from_bytes(&h).ok()) {
            request = request.header("X-Causal-Metadata", header);
        }
        prop_assume!(method != "HEAD" && method != "CONNECT");
        let got = run(send(&Arc::new(fake()), request.body(Body::from(body)).unwrap()));
        prop_assert!(got.status.as_u16() < 500, "{}", got.text);
    }

    #[test]
    fn a_value_comes_back_as_it_was_sent(key in ".{1,12}", value in json_text(), pad in "[ \t\r\n]{0,3}") {
        let path = format!("/key-value-store/{}", percent_encoded(&key));
        run(async {
            let node = Arc::new(fake());
            let body = format!(r#"{pad}{{"value"{pad}:{pad}{value}{pad},"more":{value}}}{pad}"#);
            let put = call(&node, "PUT", &path, body).await;
            if value.len() > limits().max_value_bytes {
                assert_eq!(put.status, 413);
                return;
            }
            assert_eq!(put.status, 201, "{}", put.text);
            let seen = put.header("x-causal-metadata").unwrap();
            let got = ask(&node, "GET", &path, "", seen).await;
            assert_eq!(got.header("x-causal-metadata"), Some(seen));
            let tail = format!(r#""value":{value}}}"#);
            assert!(got.text.ends_with(&tail), "{} does not end with {tail}", got.text);
            assert_eq!(node.keys.lock().unwrap().keys().next().unwrap().as_str(), key);
        });
    }
}
