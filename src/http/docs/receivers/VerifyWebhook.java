import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.util.Base64;
import java.util.HexFormat;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Verify what Lutine sends. Java 17 or later, nothing to install.
 *
 * <p>Every method takes the body as the bytes that arrived. Verify first, parse afterwards: a body that was parsed and
 * written again is another body. For `signed-envelope`, take `payloadAsString` and `signature` out of the body with the
 * JSON library that you use, verify, and parse the text that was verified.
 */
public final class VerifyWebhook {
    private static final long TOLERANCE_SECONDS = 300;

    private VerifyWebhook() {}

    /** The 32 bytes behind `whsec_`, which every signature with a shared secret is made with. */
    public static byte[] keyOf(String secret) {
        return Base64.getDecoder().decode(secret.startsWith("whsec_") ? secret.substring(6) : secret);
    }

    private static byte[] mac(String secret, byte[]... pieces) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(keyOf(secret), "HmacSHA256"));
        for (byte[] piece : pieces) {
            mac.update(piece);
        }
        return mac.doFinal();
    }

    private static boolean isEqual(String given, String expected) {
        return MessageDigest.isEqual(given.getBytes(StandardCharsets.UTF_8), expected.getBytes(StandardCharsets.UTF_8));
    }

    /** Standard Webhooks: the headers webhook-id, webhook-timestamp and webhook-signature; `now` in seconds since 1970. */
    public static boolean isStandard(String secret, String id, String timestamp, String signatures, byte[] body, long now)
            throws GeneralSecurityException {
        if (!timestamp.matches("[0-9]{1,12}") || Math.abs(now - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            return false;
        }
        byte[] stamp = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
        String expected = Base64.getEncoder().encodeToString(mac(secret, stamp, body));
        // During a rotation there are two signatures; one that matches is enough.
        for (String signature : signatures.split(" ")) {
            if (signature.startsWith("v1,") && isEqual(signature.substring(3), expected)) {
                return true;
            }
        }
        return false;
    }

    /** The header X-Signature of the profile `envelope`: sha256={hex} over the body. */
    public static boolean isHeaderHmac(String secret, String signature, byte[] body) throws GeneralSecurityException {
        return isEqual(signature, "sha256=" + HexFormat.of().formatHex(mac(secret, body)));
    }

    /** The profile `signed-envelope` with a shared secret. */
    public static boolean isSignedEnvelope(String secret, String payloadAsString, String signature) throws GeneralSecurityException {
        byte[] text = payloadAsString.getBytes(StandardCharsets.UTF_8);
        return isEqual(signature, Base64.getEncoder().encodeToString(mac(secret, text)));
    }

    /** The same with RSA; the key is what GET /api/v1/webhooks/public-key answers. */
    public static boolean isSignedEnvelopeRsa(String publicKeyPem, String payloadAsString, String signature)
            throws GeneralSecurityException {
        String base64 = publicKeyPem.replaceAll("-----[A-Z ]+-----", "").replaceAll("\\s", "");
        PublicKey key = KeyFactory.getInstance("RSA").generatePublic(new X509EncodedKeySpec(Base64.getDecoder().decode(base64)));
        Signature verifier = Signature.getInstance("SHA256withRSA");
        verifier.initVerify(key);
        verifier.update(payloadAsString.getBytes(StandardCharsets.UTF_8));
        return verifier.verify(Base64.getDecoder().decode(signature));
    }
}
