# The windows of a run of key establishment as a table.

def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def spread(format): "\(median | format) (\(min | format) to \(max | format))";
def hundredths: . * 100 | round / 100 | tostring;
def tenths: . * 10 | round / 10 | tostring;
def whole: round | tostring;
def pad($width): . + " " * ([$width - length, 0] | max);
def rate: .completed / .seconds;
def cpu_us: .cpu_ns / .completed / 1000;

map(select(.round)) as $windows
| (map(select(.tls_us)) | first) as $split
| (map(select(.idle_bytes)) | map({key: .arm, value: .idle_bytes}) | from_entries) as $idle
| def of($arm): $windows | map(select(.arm == $arm)) | sort_by(.round);
  def against($arm; f): [of($arm), of("ntpd-rs")] | transpose | map((.[0] | f) / (.[1] | f));
  def row($arm):
    of($arm) as $own
    | [(if $arm == "third" then $third else $arm end),
       ($own | map(rate) | spread(whole)),
       (against($arm; rate) | spread(hundredths)),
       ($own | map(cpu_us) | spread(tenths)),
       (against($arm; 1 / cpu_us) | spread(hundredths)),
       ($own | map(100 * .cpu_ns / .seconds / 1e9) | median | whole),
       ($own | map(.errors | add // 0) | add | tostring)];
  def table:
    (transpose | map(map(length) | max)) as $widths
    | map([., $widths] | transpose | map(.[0] as $cell | .[1] as $width | $cell | pad($width))
          | join("  ") | sub(" +$"; ""));
  ([["", "exchanges/s", "x ntpd-rs", "CPU us/exchange", "x ntpd-rs", "server %", "errors"]]
    + (["ntpd-rs", "timeball", "third"] | map(row(.))) | table[]),
  "",
  (of("timeball") | map(cpu_us) | median) as $all
  | "of timeball's \($all | tenths) us: TLS \($split.tls_us | tenths), "
    + "records \($split.session_us - $split.tls_us | tenths), "
    + "sockets and the rest \($all - $split.session_us | tenths)",
  "memory of a connection that says nothing: "
    + "timeball \($idle.timeball) bytes, ntpd-rs \($idle["ntpd-rs"]) bytes; "
    + "after its handshake: timeball \($split.established_bytes) bytes"
