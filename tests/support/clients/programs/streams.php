<?php // PHP's own HTTP streams: GET POST BODY
[, $get, $post, $body] = $argv;
echo file_get_contents($get), "\n";
$options = ['method' => 'POST', 'header' => 'Content-Type: application/json', 'content' => $body];
echo file_get_contents($post, false, stream_context_create(['http' => $options])), "\n";
