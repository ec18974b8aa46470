// Protects one image: java Activate.java PHOTO ASSET_ID. Where Redis and S3 are is in the environment, as for the others.
import java.net.*; import java.net.http.*; import java.net.http.HttpRequest.BodyPublishers; import java.nio.file.*;
import java.security.MessageDigest; import java.time.*; import java.util.HexFormat; import javax.crypto.Mac; import javax.crypto.spec.SecretKeySpec;

public class Activate {
    static String env(String name) { return System.getenv("AII_" + name); }
    static String sha256(byte[] data) throws Exception { return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data)); }
    static byte[] hmac(byte[] key, String text) throws Exception {
        Mac mac = Mac.getInstance("HmacSHA256"); mac.init(new SecretKeySpec(key, "HmacSHA256")); return mac.doFinal(text.getBytes("UTF-8")); }
    static HttpResponse<String> s3(String method, String path, byte[] body) throws Exception { // AWS signature, version 4
        String time = Instant.now().toString().replaceAll("[-:]|\\.\\d+", ""), scope = time.substring(0, 8) + "/us-east-1/s3/aws4_request";
        String names = "host;x-amz-content-sha256;x-amz-date", lines = "host:" + env("S3_ENDPOINT") + "\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:" + time + "\n";
        String text = "AWS4-HMAC-SHA256\n" + time + "\n" + scope + "\n" + sha256((method + "\n" + path + "\n\n" + lines + "\n" + names + "\nUNSIGNED-PAYLOAD").getBytes("UTF-8"));
        byte[] key = ("AWS4" + env("S3_SECRET_KEY")).getBytes("UTF-8"); for (String part : scope.split("/")) key = hmac(key, part);
        String authorization = "AWS4-HMAC-SHA256 Credential=" + env("S3_ACCESS_KEY") + "/" + scope + ", SignedHeaders=" + names + ", Signature=" + HexFormat.of().formatHex(hmac(key, text));
        return HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create("http://" + env("S3_ENDPOINT") + path)).method(method, body == null ? BodyPublishers.noBody() : BodyPublishers.ofByteArray(body))
            .headers("x-amz-content-sha256", "UNSIGNED-PAYLOAD", "x-amz-date", time, "Authorization", authorization).build(), HttpResponse.BodyHandlers.ofString()); }
    static String resp(String... words) throws Exception {
        String text = "*" + words.length + "\r\n"; for (String word : words) text += "$" + word.getBytes("UTF-8").length + "\r\n" + word + "\r\n"; return text; }
    public static void main(String[] arguments) throws Exception {
        byte[] image = Files.readAllBytes(Path.of(arguments[0])); String digest = sha256(image); // keys in their order: this is JCS already
        String request = "{\"asset_id\":\"%s\",\"collection\":\"starter\",\"schema_version\":2,\"source\":{\"sha256\":\"%s\"},\"task\":\"aii.activate\"}".formatted(arguments[1], digest);
        String id = sha256(request.getBytes("UTF-8")).substring(0, 32), body = "[[],{\"request\":" + request + "},{}]";
        if (s3("PUT", "/originals/" + digest, image).statusCode() != 200) throw new RuntimeException("S3 does not take the image");
        String message = "{\"headers\":{\"task\":\"aii.activate\",\"id\":\"" + id + "\"},\"body\":\"" + body.replace("\\", "\\\\").replace("\"", "\\\"") + "\"}";
        URI redis = URI.create(env("REDIS_URL"));
        try (Socket socket = new Socket(redis.getHost(), redis.getPort())) {
            socket.getOutputStream().write((resp("AUTH", "default", redis.getUserInfo().split(":", 2)[1]) + resp("LPUSH", "activate", message) + resp("QUIT")).getBytes("UTF-8"));
            String answer = new String(socket.getInputStream().readAllBytes()); if (answer.contains("-")) throw new RuntimeException(answer); }
        HttpResponse<String> document; while ((document = s3("GET", "/results/" + id + ".json", null)).statusCode() != 200) Thread.sleep(100);
        System.out.println(document.body()); } }
