# How far off timestamps are from the moment that they name, in nanoseconds, whatever the sign: a
# line for each kind of request, mode, load and timestamp. Each figure is the median of the rounds,
# a ratio with its least to most.

def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def hundredths: . * 100 | round / 100;
def spread: "\(median | hundredths) (\(min | hundredths) to \(max | hundredths))";
def whole: median | round | tostring;
def pad($width): . + " " * ($width - length);

map(select(.round > 0)) as $windows
| def of($ask; $phase; $arm):
    $windows | map(select(.ask == $ask and .phase == $phase and .arm == $arm)) | sort_by(.round);
  def figures($ask; $phase; $arm; $stamp; $figure):
    of($ask; $phase; $arm) | map(.[$stamp + "_error_ns"][$figure]);
  def ratios($ask; $phase; $stamp; $figure):
    [figures($ask; $phase; ("timeball", "chronyd"); $stamp; $figure)] | transpose
    | map(.[0] / .[1]);
  def rows:
    ("ntp", "nts") as $ask | ("", "--interleaved") as $mode | ("0 %", "50 %", "90 %", "own 90 %") as $load
    | ("receive", "transmit") as $stamp | {$ask, $mode, $load, $stamp, phase: ($load + $mode)};
  def ratio_of($row; $figure): ratios($row.ask; $row.phase; $row.stamp; $figure);
  def line:
    . as $row
    | [.ask, (if .mode == "" then "basic" else "interleaved" end), .load, .stamp,
       (("chronyd", "timeball") as $arm
        | (of(.ask; .phase; $arm) | map(.answered / 1000) | whole),
          (("mean", "p99") as $figure
           | figures($row.ask; $row.phase; $arm; $row.stamp; $figure) | whole)),
       (("mean", "p99") as $figure | ratio_of($row; $figure) | spread)];
  def table:
    ["ask", "mode", "load", "timestamp", "chronyd: 1000/s", "mean ns", "p99",
     "timeball: 1000/s", "mean ns", "p99", "mean x chronyd", "p99 x chronyd"],
    (rows | line);
  def better($figure): [rows | select((ratio_of(.; $figure) | median) < 1)] | length;
  ([table] | transpose
    | map((map(length) | max) as $width | map(pad($width))) | transpose | .[] | join("  ")),
  "",
  "timeball is nearer: the mean in \(better("mean")) of \([rows] | length) lines, " +
    "the 99th percentile in \(better("p99"))",
  "replies authenticated: \($windows | map(.sampled - .wrong) | add), wrong: \(
    $windows | map(.wrong) | add); measured: \(
    $windows | map(.transmit_error_ns.count) | add) transmit timestamps, \(
    $windows | map(.receive_error_ns.count) | add) receive timestamps"
