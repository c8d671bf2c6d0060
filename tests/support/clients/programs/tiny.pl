# Perl's own HTTP::Tiny: GET POST BODY
use strict;
use HTTP::Tiny;
my ($get, $post, $body) = @ARGV;
my $agent = HTTP::Tiny->new(verify_SSL => 1);
print $agent->get($get)->{content}, "\n", $agent->post($post, { content => $body })->{content}, "\n";
