# The windows of a run as a table: one line for each kind of request and arm.

def median: sort | if length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def spread(format): "\(median | format) (\(min | format) to \(max | format))";
def thousands: . / 1000 | round | tostring;
def hundredths: . * 100 | round / 100 | tostring;
def tenths: . * 10 | round / 10 | tostring;
def whole: round | tostring;
def pad($width): . + " " * ($width - length);
def cpu: .cpu_ns + .beside_ns;

map(select(.round > 0)) as $windows
| def of($ask; $arm; $phase):
    $windows | map(select(.ask == $ask and .arm == $arm and .phase == $phase)) | sort_by(.round);
  def against($ask; $arm; $base; f): [of($ask; $arm; "capacity"), of($ask; $base; "capacity")]
    | transpose | map((.[0] | f) / (.[1] | f));
  def row($ask; $arm):
    of($ask; $arm; "capacity") as $capacity
    | ([of($ask; $arm; "flood"), $capacity] | transpose) as $pairs
    | [$ask, (if $arm == "third" then $third else $arm end),
       ($capacity | map(.answered) | spread(thousands)),
       (against($ask; $arm; "chronyd"; .answered) | spread(hundredths)),
       ($capacity | map(cpu) | spread(whole)),
       (against($ask; $arm; "chronyd"; 1 / cpu) | spread(hundredths)),
       ($pairs | map(.[0].offered / .[1].answered) | median | tenths),
       ($pairs | map(100 * .[0].answered / .[1].answered) | spread(whole)),
       (of($ask; $arm; "paced") | map(.lost_percent) | spread(tenths)),
       ($capacity | map(100 * (.server_share + .beside_share)) | median | whole)];
  def table:
    ["ask", "arm", "1000 responses/s", "x chronyd", "CPU ns/response", "x chronyd",
     "flood x", "answers % of col. 3", "lost % at 90 %", "core %"],
    (("ntp", "nts") as $ask | ("chronyd", "timeball", "third") as $arm | row($ask; $arm));
  (table | [., [3, 8, 16, 19, 22, 19, 7, 18, 16, 6]] | transpose
    | map(.[1] as $width | .[0] | pad($width)) | join("  ")),
  "",
  (("ntp", "nts") as $ask
    | "\($ask): \($third) against timeball in the same round: responses/s x " +
      (against($ask; "third"; "timeball"; .answered) | spread(hundredths)) +
      ", per CPU time x " + (against($ask; "third"; "timeball"; 1 / cpu) | spread(hundredths))),
  "replies authenticated: \($windows | map(.sampled - .wrong) | add), wrong: \(
    $windows | map(.wrong) | add)",
  ($windows | map(select(.phase == "capacity" and .offered < 1.1 * .answered)) | length
    | if . > 0 then "INVALID: in \(.) windows less than 1.1 x the answers was offered"
      else empty end)
