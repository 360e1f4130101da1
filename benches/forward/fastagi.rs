//! A question by FastAGI, from connecting to the end of the conversation, as Asterisk holds it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::company::Caller;

/// What Asterisk tells about the channel, and the question that the printed dialplan asks.
fn head(address: SocketAddr, phone: u64, call_id: &str) -> String {
    let script =
        format!("forward?phone=%2B{phone}&trunk=74951234567&callid={call_id}&tried=&status=");
    format!(
        "agi_network: yes\nagi_network_script: {script}\nagi_request: agi://{address}/{script}\n\
         agi_channel: PJSIP/trunk-00000001\nagi_language: ru\nagi_type: PJSIP\nagi_uniqueid: {call_id}\n\
         agi_version: 22.0.0\nagi_callerid: +{phone}\nagi_calleridname: unknown\nagi_callingpres: 0\n\
         agi_callingani2: 0\nagi_callington: 0\nagi_callingtns: 0\nagi_dnid: 74951234567\nagi_rdnis: unknown\n\
         agi_context: from-trunk\nagi_extension: 74951234567\nagi_priority: 3\nagi_enhanced: 0.0\n\
         agi_accountcode: \nagi_threadid: 139872263976640\n\n"
    )
}

/// Asks, answers each command, and stops at a conversation that is not the right one.
pub(crate) async fn ask(
    stream: &mut TcpStream,
    address: SocketAddr,
    caller: Caller,
    call_id: &str,
) {
    let phone = caller.phone;
    stream
        .write_all(head(address, phone, call_id).as_bytes())
        .await
        .unwrap();
    let mut told = Vec::with_capacity(512);
    let mut answered = 0;
    loop {
        let count = stream.read_buf(&mut told).await.unwrap();
        if count == 0 {
            break;
        }
        let commands = memchr::memchr_iter(b'\n', &told).count();
        for _ in answered..commands {
            stream.write_all(b"200 result=1\n").await.unwrap();
        }
        answered = commands;
    }
    let told = String::from_utf8_lossy(&told);
    assert_eq!(told, caller.commands(), "a wrong conversation for +{phone}");
}
